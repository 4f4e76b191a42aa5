"""What a checkpoint and a folder say beside their tensors: it decides what is read, and no logit shows it."""

from __future__ import annotations

from collections.abc import Iterator

from megatron.conversion.described_model import DescribedModel


def different_settings(
    ours: DescribedModel, theirs: DescribedModel, *, is_export: bool, same_objective: bool, same_tokenizer: bool
) -> Iterator[str]:
    """A remark for each setting of the folder that is not the checkpoint's.

    is_export: we wrote the folder, from such a checkpoint. Those of strangers are imported by what their tokenizer says
    of the ends and beginnings of texts. same_objective: of both; how prompts are read follows from it. same_tokenizer:
    both should have the same one.
    """
    has_encoder = ours.architecture == "encoder_decoder"
    yield from _different("longest row", ours.max_positions, theirs.max_positions)
    if has_encoder and theirs.pad_token is not None:
        yield from _different("the decoder's start token", ours.pad_token, theirs.pad_token)
    if is_export and same_objective and ours.architecture == theirs.architecture:
        yield from _different(
            "prompts that are read both ways", ours.reads_prompts_both_ways, theirs.reads_prompts_both_ways
        )
    if is_export and same_tokenizer:
        yield from _different(
            "texts that begin with the start token", ours.begins_with_start_token, theirs.begins_with_start_token
        )
        yield from _different("start token", ours.start_token, theirs.start_token)
        yield from _different("end token", ours.end_token, theirs.end_token)
        # A tokenizer without one is exported with one, which its config does not name.
        if not has_encoder and theirs.pad_token is not None:
            yield from _different("padding token", ours.pad_token, theirs.pad_token)


def _different(what: str, ours: bool | int | None, theirs: bool | int | None) -> Iterator[str]:
    if ours != theirs:
        yield f"{what}: {_said(ours)} by the checkpoint, {_said(theirs)} by the folder"


def _said(value: bool | int | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value}"
