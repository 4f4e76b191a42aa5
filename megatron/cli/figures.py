"""A run's settings as what its figures depend on: parameters, FLOPs, memory, traffic. Imports no torch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from megatron.architectures.flops import VisiblePairs
from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.shapes import ModelShape
from megatron.basics.draws import Draws
from megatron.cli.run_config import RunConfig
from megatron.cli.wire_rows import build_objective, row_rules
from megatron.loop.training_size import TrainingSize
from megatron.objectives.registry import OBJECTIVES
from megatron.records.row import Row
from megatron.records.window import Window

if TYPE_CHECKING:
    from megatron.tokenization.tokenizer import Tokenizer

SAMPLES = 512  # rows whose visible pairs are counted: brings the mean of a prefix LM's within 1 % or so


def model_shape(config: RunConfig, vocabulary_size: int) -> ModelShape:
    """The model and the lengths of its rows."""
    lengths = (config.data.seq_length, config.data.decoder_seq_length or config.data.seq_length)
    return ModelShape(
        architecture=ARCHITECTURES[config.architecture](),
        model=config.model,
        vocabulary_size=vocabulary_size,
        max_positions=config.model.max_position_embeddings or max(lengths),
        lengths=lengths,
    )


def has_plainly_causal_masks(config: RunConfig) -> bool:
    """Whether every mask is that of one causal text, so that a library's causal kernel may be taken."""
    packs = config.data.pack_documents or OBJECTIVES[config.objective].reads_pairs
    return ARCHITECTURES[config.architecture].is_causal and not (config.data.reset_attention_mask or packs)


def training_size(config: RunConfig, vocabulary_size: int, world_size: int) -> TrainingSize:
    """What memory, traffic and time of a run depend on."""
    return TrainingSize(
        shape=model_shape(config, vocabulary_size),
        layout=config.layout,
        batch=config.batch,
        optimizer=config.optimizer,
        world_size=world_size,
        has_plainly_causal_masks=has_plainly_causal_masks(config),
    )


def visible_pairs(config: RunConfig, tokenizer: Tokenizer) -> VisiblePairs:
    """What positions of a full row see on the average, counted over rows that the objective makes.

    The same ones in every process. A row counts as one window: documents that hide from one another, and several
    windows packed into a row, see less.
    """
    architecture = ARCHITECTURES[config.architecture]()
    objective = build_objective(config, architecture, tokenizer)
    nothing = np.zeros(0, np.int32)
    window = Window(np.zeros(objective.window_length, np.int32), document_starts=nothing)
    arrange = partial(architecture.arrange, rules=row_rules(config, tokenizer))
    counts = [_pairs_of(arrange(objective(window, Draws(sample)))) for sample in range(SAMPLES)]
    decoder, encoder, cross = (sum(column) / SAMPLES for column in zip(*counts, strict=True))
    return VisiblePairs(decoder=decoder, encoder=encoder, cross=cross)


def _pairs_of(row: Row) -> tuple[int, int, int]:
    """Pairs in the decoder, in the encoder, and across."""
    intervals = [row.intervals]
    if row.encoder is not None:
        intervals += [row.encoder.intervals, row.encoder.cross_intervals]
    decoder, encoder, cross = [int((own[:, 1] - own[:, 0]).sum()) for own in intervals] + [0, 0][len(intervals) - 1 :]
    return decoder, encoder, cross
