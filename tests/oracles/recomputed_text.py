"""Generation without a cache: each new token recomputes its whole row, kept at full length."""

from functools import partial

import torch

from megatron.basics.seeds import seed_for
from megatron.data.collate import collate
from megatron.evaluation.sampling import choose_token
from megatron.loop.forward_only import read_outputs


def recomputed_text(chunk, prompts, options, prompt_rows, *, vocabulary_size):
    """What `megatron.evaluation.generate.generate` promises, on one process and one prompt at a time."""
    chunk.eval()
    return [
        _written_behind(chunk, prompt, number, options, prompt_rows, vocabulary_size)
        for number, prompt in enumerate(prompts)
    ]


def _written_behind(chunk, prompt, number, options, prompt_rows, vocabulary_size):
    row, position = prompt_rows.arrange(prompt)
    batch = collate([row])
    generator = torch.Generator().manual_seed(seed_for(options.seed, "generate", number))
    new_tokens = []
    while len(new_tokens) < options.max_new_tokens and new_tokens[-1:] != [prompt_rows.rules.end_token]:
        (logits,) = read_outputs([chunk], [batch], partial(_logits_at, position))
        token = choose_token(
            logits[:vocabulary_size],
            generator,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
        )
        new_tokens.append(token)
        position += 1
        if position < batch.tokens.shape[1]:  # else the row is full, and the token was a label alone
            batch.tokens[0, position] = token
    return new_tokens


def _logits_at(position, _, outputs):
    return outputs[position, 0].float()
