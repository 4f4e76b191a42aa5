"""Reads tensors of a target model out of a checkpoint of its source."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from torch import Tensor

from megatron.adaptation.plan import HEAD_TABLE, WORD_TABLE, Plan
from megatron.basics.errors import UserError
from megatron.checkpoint.shards import ShardReader

MASTER_WEIGHTS = "param"
_STATE_PREFIX = "optimizer.state."


@dataclass(frozen=True)
class Vocabularies:
    """Sizes without padding of the source's vocabulary and the target's, which begins with it."""

    before: int
    after: int


class AdaptedReader:
    """Boxes of the target's optimizer state from the source's checkpoint, one whole tensor in memory at most."""

    def __init__(self, reader: ShardReader, plan: Plan, vocabularies: Vocabularies) -> None:
        self.reader, self.plan, self.vocabularies = reader, plan, vocabularies
        self._last_gathered: tuple[str, Tensor] | None = None
        self._means: dict[str, Tensor] = {}

    def fill(self, box: ShardedTensor) -> Tensor | None:
        """The values of a box `optimizer.state.STATE.NAME`; None where the plan has it drawn and it stays as it is.

        Raises UserError when the source has no such state.
        """
        state, name = box.key.removeprefix(_STATE_PREFIX).split(".", maxsplit=1)
        source = self.plan.source_of(name)
        if source is None:
            return None
        key = self._key_of(state, source.name)
        if name in (WORD_TABLE, HEAD_TABLE):
            return self._words(box, key, is_weight=state == MASTER_WEIGHTS)
        if source.index is None:
            return self.reader.fill(replace(box, key=key))
        return self._gathered(key, source.dim, source.index)[_slices(box)]

    def _key_of(self, state: str, name: str) -> str:
        """Master weights where the source has them, else its weights."""
        key = f"{_STATE_PREFIX}{state}.{name}"
        if key in self.reader.manifest.tensors:
            return key
        if state == MASTER_WEIGHTS:
            return name
        raise UserError(
            f"--optimizer-state keep: {self.reader.folder} has no {state} of {name}, it was trained with another "
            "optimizer; use --optimizer-state fresh."
        )

    def _gathered(self, key: str, dim: int, index: Tensor) -> Tensor:
        """A whole tensor with its entries along `dim` chosen; the last one is kept, as boxes come in runs."""
        if self._last_gathered is None or self._last_gathered[0] != key:
            self._last_gathered = None  # never two of them in memory
            self._last_gathered = (key, self._whole(key))
        return self._last_gathered[1].index_select(dim, index)

    def _whole(self, key: str) -> Tensor:
        entry = self.reader.manifest.tensors.get(key)
        shape = entry.shape if entry else ()
        return self.reader.fill(_box(key, shape, (0,) * len(shape), shape))

    def _words(self, box: ShardedTensor, key: str, *, is_weight: bool) -> Tensor:
        """Rows of a table of words: those of the source, and behind them the rows of added tokens.

        An added token begins at the mean of all words, so that it is no likelier than they are, plus its fresh draw,
        so that no two are alike (Hewitt 2021, Initializing New Word Embeddings for Pretrained Language Models).
        """
        entry = self.reader.manifest.tensors.get(key)
        if entry is None:
            raise UserError(f"{self.reader.folder} has no tensor {key}; give the run folder of a whole model.")
        is_unchanged = entry.shape == tuple(box.global_shape) and self.vocabularies.before == self.vocabularies.after
        if is_unchanged or entry.shape[0] < self.vocabularies.before:  # the latter are Adafactor's sums over all words
            return self.reader.fill(replace(box, key=key))
        first, *columns = box.global_offset
        count, *widths = box.local_shape
        filled = box.data.detach().clone()
        known = min(max(self.vocabularies.before - first, 0), count)
        if known:
            filled[:known] = self.reader.fill(_box(key, entry.shape, (first, *columns), (known, *widths)))
        end = min(max(self.vocabularies.after - first, 0), count)
        if is_weight and end > known:
            filled[known:end] += self._mean(key, entry.shape)[columns[0] : columns[0] + widths[0]]
        return filled

    def _mean(self, key: str, shape: tuple[int, ...]) -> Tensor:
        """Mean of all words of the source, float32 [h]."""
        if key not in self._means:
            words = self.reader.fill(_box(key, shape, (0, 0), (self.vocabularies.before, shape[1])))
            self._means[key] = words.mean(dim=0)
        return self._means[key]


def _box(key: str, whole: tuple[int, ...], offset: tuple[int, ...], shape: tuple[int, ...]) -> ShardedTensor:
    return ShardedTensor(
        key=key,
        data=None,
        dtype=torch.float32,
        local_shape=shape,
        global_shape=whole,
        global_offset=offset,
        axis_fragmentations=None,
    )


def _slices(box: ShardedTensor) -> tuple[slice, ...]:
    return tuple(slice(o, o + n) for o, n in zip(box.global_offset, box.local_shape, strict=True))
