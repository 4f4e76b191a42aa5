"""Generation without a cache: a model that reads whole rows says what it would have written, token by token."""

import torch

from megatron.basics.seeds import seed_for
from megatron.data.collate import collate
from megatron.evaluation.sampling import choose_token
from megatron.loop.forward_only import read_outputs


def recomputed_text(chunk, prompts, written, options, prompt_rows, *, vocabulary_size):
    """What `megatron.evaluation.generate.generate` promises, given what it has written, one prompt at a time.

    A text equals this one only if each of its tokens is the choice behind those before it, and it ends where it has to.
    """
    chunk.eval()
    return [
        _choices(chunk, prompt, number, tokens, options, prompt_rows, vocabulary_size)
        for number, (prompt, tokens) in enumerate(zip(prompts, written, strict=True))
    ]


def _choices(chunk, prompt, number, tokens, options, prompt_rows, vocabulary_size):
    row, position = prompt_rows.arrange(prompt)
    batch = collate([row])
    known = batch.tokens[0, position + 1 :]
    known[: len(tokens)] = torch.tensor(tokens)[: len(known)]  # where the row is full, the last token is a label alone
    (logits,) = read_outputs([chunk], [batch], lambda _, outputs: outputs[position:, 0, :vocabulary_size].float())
    generator = torch.Generator().manual_seed(seed_for(options.seed, "generate", number))
    cuts = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
    choices = []
    while len(choices) < min(options.max_new_tokens, len(tokens) + 1) and choices[-1:] != [prompt_rows.rules.end_token]:
        choices.append(choose_token(logits[len(choices)], generator, **cuts))
    return choices
