"""What a folder's config and tokenizer say of the tokens that stand around texts, and what a run makes of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.basics.errors import RunFault, UserError
from megatron.data.options import DataOptions

if TYPE_CHECKING:
    from megatron.conversion.described_model import DescribedModel
    from megatron.conversion.load import ImportPlan
    from megatron.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


def with_start_token(plan: ImportPlan, tokenizer: Tokenizer, folder: Path | None) -> DescribedModel:
    """The model with what its texts begin with, which the config of a stranger does not say, but its tokenizer does.

    folder: of that tokenizer, None for a file, which says nothing of it. Warns of what is put around texts and that no
    rows of ours have. Raises UserError where a decoder behind an encoder starts with another token than padding.
    """
    described, special = plan.described, tokenizer.special
    _tell_other_tokens(plan, tokenizer)
    if described.architecture == "encoder_decoder":
        _require_same_padding(plan, tokenizer)
        return described
    if plan.provenance is not None:
        return described
    before, behind = _ids_around_texts(folder) if folder else ([], [])
    begins = len(before) == 1 and before[0] in (special.begin, special.pad)
    if behind or (before and not begins):
        logger.warning(
            "warning: the tokenizer of %s puts %s in front of texts and %s behind them, which rows of ours do not "
            "have; give it texts without special tokens where both should compute the same.",
            folder,
            _named(before, tokenizer),
            _named(behind, tokenizer),
        )
    return replace(
        described, begins_with_start_token=begins, start_token=before[0] if begins else described.start_token
    )


def start_setting(plan: ImportPlan, tokenizer: Tokenizer) -> str:
    """The value of --start-token for rows that begin as the model's texts do. Raises UserError where there is none."""
    if not plan.described.begins_with_start_token:
        return DataOptions.start_token
    start = plan.described.start_token
    ids = {"begin": tokenizer.special.begin, "pad": tokenizer.pad_id}
    before = [plan.provenance.start_token] if plan.provenance else []
    fitting = [name for name in (*before, *ids) if start is not None and ids.get(name) == start]
    if not fitting:
        raise UserError(
            f"{plan.folder.path}/config.json: texts begin with token {start} (bos_token_id), which is neither the "
            f"beginning-of-text token nor the padding of --tokenizer-model {tokenizer.source}; give the tokenizer that "
            "the model was trained with."
        )
    return fitting[0]


def _ids_around_texts(folder: Path) -> tuple[list[int], list[int]]:
    from megatron.conversion.loaded_folder import ids_around_texts

    try:
        return ids_around_texts(folder, with_code=False)
    except RunFault as fault:
        logger.warning("warning: whether texts begin with a start token is not known: %s", fault)
        return [], []


def _require_same_padding(plan: ImportPlan, tokenizer: Tokenizer) -> None:
    start = plan.described.pad_token  # the family takes no other token for the decoder's start
    if start not in (None, tokenizer.pad_id):
        padding = f"{tokenizer.pad_id} ({tokenizer.piece(tokenizer.pad_id)})"
        raise UserError(
            f"{plan.folder.path}/config.json: the decoder starts with token {start} (decoder_start_token_id), and in a "
            f"run with the tokenizer's padding, {padding}; correct pad_token in its tokenizer_config.json, or give the "
            "right tokenizer with --tokenizer-model."
        )


def _tell_other_tokens(plan: ImportPlan, tokenizer: Tokenizer) -> None:
    """A warning for each end and beginning of texts that the config knows and the tokenizer does not."""
    described, special = plan.described, tokenizer.special
    for what, field, filled, own in (
        ("end", "eos_token_id", described.end_token, special.end),
        ("begin", "bos_token_id", described.start_token, special.begin),
    ):
        named = [*_tokens(plan.folder.config.get(field, filled))]
        if named and own is not None and named != [own]:
            logger.warning(
                "warning: by config.json texts %s with token %s (%s), by the tokenizer with %d (%s); a run goes by the "
                "tokenizer.",
                what,
                " or ".join(map(str, named)),
                field,
                own,
                tokenizer.piece(own),
            )


def _tokens(value: Any) -> Iterator[int]:
    """One id, several or none."""
    for token in value if isinstance(value, list) else [value]:
        if isinstance(token, int):
            yield token


def _named(tokens: list[int], tokenizer: Tokenizer) -> str:
    return " ".join(map(tokenizer.piece, tokens)) or "nothing"
