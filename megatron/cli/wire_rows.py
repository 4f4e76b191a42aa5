"""Builds the rows of a run from its settings: the one place that plugs objectives into data. Imports no torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.basics.errors import UserError
from megatron.cli.row_remarks import row_remarks
from megatron.cli.run_config import RunConfig
from megatron.data.packing import piece_sizes
from megatron.data.pair_sources import build_pair_sources
from megatron.data.rows import Rows
from megatron.data.sources import WindowRules, build_sources
from megatron.data.windows import WindowSource
from megatron.objectives.protocol import Objective
from megatron.objectives.registry import OBJECTIVES
from megatron.records.room import Room
from megatron.tokenization.tokenizer import Tokenizer

if TYPE_CHECKING:
    from megatron.architectures.protocol import Architecture

logger = logging.getLogger(__name__)


def row_rules(config: RunConfig, tokenizer: Tokenizer) -> RowRules:
    """How rows are cut. A decoder behind an encoder starts from the padding token, as T5's.

    Raises UserError where rows should begin with a token that the tokenizer lacks.
    """
    start = tokenizer.pad_id
    if config.data.start_token == "begin" and config.architecture != "encoder_decoder":
        if tokenizer.special.begin is None:
            raise UserError(
                f"--start-token begin: --tokenizer-model {tokenizer.source} has no beginning-of-text token; use "
                "--start-token pad."
            )
        start = tokenizer.special.begin
    return RowRules(
        seq_length=config.data.seq_length,
        decoder_seq_length=config.data.decoder_seq_length or config.data.seq_length,
        end_token=tokenizer.eod_id,
        start_token=start,
        pad_token=tokenizer.pad_id,
        begins_with_start_token=config.data.begin_with_start_token,
        reset_attention_mask=config.data.reset_attention_mask,
        reset_position_ids=config.data.reset_position_ids,
        eod_mask_loss=config.data.eod_mask_loss,
    )


def build_objective(config: RunConfig, architecture: Architecture, tokenizer: Tokenizer) -> Objective:
    """The objective for the rows of a run. Raises UserError when rows or vocabulary do not do."""
    objective: Objective = OBJECTIVES[config.objective].build(
        config.objective_options, tokenizer.special, architecture.room(row_rules(config, tokenizer))
    )
    return objective


def build_rows(config: RunConfig, tokenizer: Tokenizer, splits: Sequence[str]) -> dict[str, Rows]:
    """The rows of those of `splits` that have text. Raises UserError with every fault of every file."""
    architecture: Architecture = ARCHITECTURES[config.architecture]()
    rules = row_rules(config, tokenizer)
    objective, room = build_objective(config, architecture, tokenizer), architecture.room(rules)
    sources = _build_sources(config, objective, room, tokenizer, splits)
    for remark in row_remarks(config, objective, tokenizer.special, room):
        logger.info(remark)
    return {
        split: Rows(
            source=source,
            objective=objective,
            arrange=partial(architecture.arrange, rules=rules),
            seed=config.batch.seed,
        )
        for split, source in sources.items()
        if source is not None
    }


def _build_sources(
    config: RunConfig, objective: Objective, room: Room, tokenizer: Tokenizer, splits: Sequence[str]
) -> dict[str, WindowSource | None]:
    """Windows of text, or the examples that the data have."""
    vocabulary_size = tokenizer.vocabulary_size - len(tokenizer.added)  # no text has the added ids
    if objective.reads_pairs:
        return build_pair_sources(
            config.data,
            room,
            seed=config.batch.seed,
            vocabulary_size=vocabulary_size,
            tokenizer_fingerprint=tokenizer.fingerprint,
            splits=splits,
        )
    return build_sources(
        config.data,
        WindowRules(
            window_length=objective.window_length,
            stride=objective.stride,
            seed=config.batch.seed,
            parts_documents=config.data.reset_attention_mask and not objective.marks_documents,
            sizes=piece_sizes(objective, room) if config.data.pack_documents else None,
        ),
        vocabulary_size=vocabulary_size,
        tokenizer_fingerprint=tokenizer.fingerprint,
        splits=splits,
    )
