"""What the export of a decoder answers, asked through transformers alone; a script for processes without our code."""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


@torch.no_grad()
def answers_of(model, given):
    """Logits and greedy texts by name.

    given: tokens int64 [b, s], lengths of prefixes [b], prompts [n, p] with padding on the left, their sizes [n], and
    the number of new tokens.
    """
    tokens, lengths, prompts, sizes = (given[name] for name in ("tokens", "lengths", "prompts", "sizes"))
    place = torch.arange(tokens.shape[1])
    answers = {
        "causal": model(tokens).logits,
        "lengths": model(tokens, prefix_lengths=lengths).logits,
        "types": model(tokens, token_type_ids=(place < lengths[:, None]).long()).logits,
    }
    for side in ("left", "right"):
        number = place - (tokens.shape[1] - lengths[:, None] if side == "left" else 0 * lengths[:, None])
        real = (number >= 0) & (number < lengths[:, None])
        padded = tokens.gather(1, number.clamp(0, tokens.shape[1] - 1)).masked_fill(~real, 0)
        logits = model(padded, attention_mask=real.long(), prefix_lengths=lengths // 2).logits
        answers[side] = logits[real]
    single = [
        model(row[None, :length], prefix_lengths=(length // 2)[None]).logits[0]
        for row, length in zip(tokens, lengths, strict=True)
    ]
    answers["single"] = torch.cat(single)

    steps = {"max_new_tokens": int(given["new"]), "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    mask = torch.arange(prompts.shape[1]) >= prompts.shape[1] - sizes[:, None]
    whole = {"input_ids": prompts, "attention_mask": mask.long(), **steps}
    answers["cache"] = model.generate(**whole)
    answers["recomputed"] = model.generate(**whole, use_cache=False)
    answers["from the left"] = model.generate(**whole, token_type_ids=torch.zeros_like(prompts))
    for name, settings in (("alone", {}), ("alone recomputed", {"use_cache": False})):
        alone = model.generate(prompts[:1, -int(sizes[0]) :], **steps, **settings)
        answers[name] = alone[0, int(sizes[0]) :]
    answers["beams"] = model.generate(**whole, num_beams=2)
    answers["beams recomputed"] = model.generate(**whole, num_beams=2, use_cache=False)
    return {name: value.contiguous() for name, value in answers.items()}


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        stranger = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
        save_file(answers_of(stranger, load_file(folder / "given")), folder / "answers")
    assert not [name for name in sys.modules if name.startswith("megatron")]
