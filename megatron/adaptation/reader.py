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
FIRST_MOMENT, SECOND_MOMENTS = "exp_avg", ("exp_avg_sq", "exp_avg_sq_row")
_STATE_PREFIX = "optimizer.state."


@dataclass(frozen=True)
class Vocabularies:
    """Sizes without padding of the source's vocabulary and the target's, which begins with it."""

    before: int
    after: int


class AdaptedReader:
    """Boxes of the target's optimizer state from the source's checkpoint.

    At most one whole tensor is in memory, and one piece of it as it was stored.
    """

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
            return self._words(box, key, begins_at_mean=self._begins_at_mean(state, source.name))
        if source.index is None:
            return self.reader.fill(replace(box, key=key))
        return self._gathered(key, box, source.dim, source.index)

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

    def _begins_at_mean(self, state: str, name: str) -> bool:
        """Whether added words take something of the mean of the others: weights, and Adafactor's second moments.

        The step count stays. Beside it moments of zero would make Adafactor's first update of a row step^0.4 times as
        large as that of a word that it knows, and clipping by the size of the whole update would shrink all others.
        Adam's is bounded by its betas, its first moment grows with its second, and no weight has to do with another.
        """
        if state == MASTER_WEIGHTS:
            return True
        has_first_moment = f"{_STATE_PREFIX}{FIRST_MOMENT}.{name}" in self.reader.manifest.tensors
        return state in SECOND_MOMENTS and not has_first_moment

    def _gathered(self, key: str, box: ShardedTensor, dim: int, index: Tensor) -> Tensor:
        """A box of a tensor with its entries along `dim` chosen; the last tensor is kept, as boxes come in runs."""
        if self._last_gathered is None or self._last_gathered[0] != key:
            self._last_gathered = None  # never two of them in memory
            self._last_gathered = (key, self._whole(key))
        slices = list(_slices(box))
        chosen = index[slices[dim]]
        slices[dim] = slice(None)
        return self._last_gathered[1][tuple(slices)].index_select(dim, chosen)

    def _whole(self, key: str) -> Tensor:
        entry = self.reader.manifest.tensors.get(key)
        shape = entry.shape if entry else ()
        return self.reader.fill(_box(key, shape, (0,) * len(shape), shape))

    def _words(self, box: ShardedTensor, key: str, *, begins_at_mean: bool) -> Tensor:
        """Rows of a table of words: those of the source, and behind them the rows of added tokens.

        The weights of an added token begin at the mean of all words, so that it is no likelier than they are, plus its
        fresh draw, so that no two are alike (Hewitt 2021, Initializing New Word Embeddings for Pretrained Language
        Models).
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
        if begins_at_mean and end > known:
            own_columns = tuple(slice(o, o + n) for o, n in zip(columns, widths, strict=True))
            filled[known:end] += self._mean(key, entry.shape)[own_columns]
        return filled

    def _mean(self, key: str, shape: tuple[int, ...]) -> Tensor:
        """Mean over all words of the source, float32 [h], or [] where there is one number for each."""
        if key not in self._means:
            words = self.reader.fill(_box(key, shape, (0,) * len(shape), (self.vocabularies.before, *shape[1:])))
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
