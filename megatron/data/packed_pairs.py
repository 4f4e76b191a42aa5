"""Rows of whole examples from a mixture of data sets."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from megatron.basics.errors import UserError
from megatron.data.mixture import Mixture
from megatron.data.pair_file import DOCUMENTS_AT_ONCE, PairFile
from megatron.data.permutation import UNSHUFFLED, Permutation
from megatron.data.row_filler import fill_rows
from megatron.records.room import Room
from megatron.records.window import Window

logger = logging.getLogger(__name__)

LARGEST_BLOCK = 1 << 17  # examples: rows are as full as with more, and packing them takes a tenth of a second
FEWEST_ROWS = 256  # of a block of training, about, so that a last row that stays empty counts for little
BLOCKS_KEPT = 2  # threads that prepare batches ahead read from two


@dataclass(frozen=True, eq=False)
class ExampleRange:
    """Some neighbouring examples of a data set, those of a split, and its weight in the mixture."""

    file: PairFile
    examples: range
    weight: float


@dataclass(frozen=True, eq=False)
class _Block:
    """Examples that were packed together.

    examples: int64 [n], their numbers. rows: int64 [n], the row of each. order: of the rows.
    """

    examples: NDArray[np.int64]
    rows: NDArray[np.int64]
    order: Permutation

    @property
    def num_rows(self) -> int:
        return self.order.size

    @cached_property
    def _by_row(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The examples row by row, and where each row ends."""
        return self.examples[np.argsort(self.rows, kind="stable")], np.cumsum(np.bincount(self.rows))

    def examples_at(self, place: int) -> list[int]:
        """The numbers of the examples in the row that comes at this place."""
        row = self.order[place]
        examples, ends = self._by_row
        return examples[ends[row - 1] if row else 0 : ends[row]].tolist()


class PackedPairs:
    """Rows of whole examples, those of one row from any of the data sets of a mixture.

    The mixture is cut into blocks of equal numbers of examples, and those of a block are packed into rows, by best fit
    with one capacity (a decoder's row) or two (an encoder's and a decoder's); see `fill_rows`. A block's rows come in
    an order that is a permutation computed from (seed, block). So what the rows of a block hold is a function of (seed,
    block), found from the lengths of its examples alone; where it begins follows from those before it, which are
    packed once, as far as training has come: about 0.1 seconds a block of 2^17 examples with csrc/packing, of which
    T0's mixture is some 130 for each time that it is seen.

    shuffled=False (validation): data sets are read in the order of their files, and rows do not depend on the seed.
    Cost: 2 or 4 bytes for each example
    and each capacity. Raises UserError for the first target of each data set that is too long for a row.
    """

    def __init__(
        self, parts: Sequence[ExampleRange], room: Room, *, seed: int, shuffled: bool = True, name: str = "train"
    ) -> None:
        self._parts, self._room = list(parts), room
        self._seed = seed if shuffled else UNSHUFFLED
        sizes = [len(part.examples) for part in parts]
        self._begins = np.cumsum([0, *sizes]).tolist()
        self._mixture = Mixture(sizes, [part.weight for part in parts], seed=seed, shuffled=shuffled)
        self._capacities = (room.inputs, room.targets) if room.is_split else (room.total,)
        self._costs, num_cut = self._read_costs()
        self._block_size = self._choose_block_size(fills_rows=shuffled)
        self._lock = threading.Lock()
        self._ends = [0]  # samples before each block, as far as they are known
        self._blocks: OrderedDict[int, _Block] = OrderedDict()
        first = self._packed(0)
        self._rows_per_example = first.num_rows / self._block_size
        logger.info(
            "%s: %s examples of %s packed into about %s rows an epoch; rows are %s full%s",
            name,
            f"{sum(sizes):,}",
            f"{len(parts)} data set{'s' if len(parts) > 1 else ''}",
            f"{self.samples_per_epoch:,.0f}",
            self._fullness(first),
            f"; {num_cut:,} inputs are cut at their beginning to fit beside their targets" if num_cut else "",
        )

    @property
    def samples_per_epoch(self) -> float:
        """Rows, about, until the data set that is used up first has been seen once."""
        return self._mixture.examples_per_pass * self._rows_per_example

    def windows(self, sample: int) -> list[Window]:
        """The examples in the row of a sample: tokens int32 [i + t] with `num_inputs` i; `index` = sample.

        Raises UserError when the tokens are not of the tokenizer's vocabulary (see `TokenFile.read`).
        """
        return [self._window(example, sample) for example in self.examples(sample)]

    def examples(self, sample: int) -> list[int]:
        """The examples in the row of a sample, numbered through all data sets, one behind the other."""
        with self._lock:
            while sample >= self._ends[-1]:
                self._ends.append(self._ends[-1] + self._packed(len(self._ends) - 1).num_rows)
            number = bisect_right(self._ends, sample) - 1
            return self._packed(number).examples_at(sample - self._ends[number])

    def _window(self, example: int, sample: int) -> Window:
        number = bisect_right(self._begins, example) - 1
        part = self._parts[number]
        tokens, num_inputs = part.file.read(part.examples[example - self._begins[number]], self._room)
        return Window(tokens, np.zeros(1, np.int32), sample, num_inputs)

    def _packed(self, number: int) -> _Block:
        if number not in self._blocks:
            examples = self._mixture.take(number * self._block_size, (number + 1) * self._block_size)
            rows = fill_rows(self._costs[examples].astype(np.int32), self._capacities)
            order = Permutation(int(rows.max()) + 1, self._seed, "row order", number)
            self._blocks[number] = _Block(examples, rows, order)
            while len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return self._blocks[number]

    def _read_costs(self) -> tuple[NDArray[np.unsignedinteger], int]:
        """(what each example takes of each capacity: [n, k], how many inputs are cut)."""
        dtype = np.uint16 if max(self._capacities) < 1 << 16 else np.uint32
        costs = np.empty((self._begins[-1], len(self._capacities)), dtype)
        filled = num_cut = 0
        faults: list[str] = []
        for part in self._parts:
            try:
                for begin in range(0, len(part.examples), DOCUMENTS_AT_ONCE):
                    sizes, cut = part.file.sizes(part.examples[begin : begin + DOCUMENTS_AT_ONCE], self._room)
                    costs[filled : filled + len(sizes)] = sizes if self._room.is_split else sizes.sum(1, keepdims=True)
                    filled, num_cut = filled + len(sizes), num_cut + cut
            except UserError as error:
                faults += error.faults
        if faults:
            raise UserError(*faults)
        return costs, num_cut

    def _choose_block_size(self, *, fills_rows: bool) -> int:
        """One epoch, but no more than is packed at once, and enough to fill rows well."""
        size = int(self._mixture.examples_per_pass)
        if fills_rows:
            some = self._costs[self._mixture.take(0, min(max(size, 1), LARGEST_BLOCK))].mean(axis=0)
            size = max(size, int(FEWEST_ROWS * (np.array(self._capacities) / np.maximum(some, 1)).min()))
        return min(max(size, 1), LARGEST_BLOCK)

    def _fullness(self, block: _Block) -> str:
        """`99.3 %`, where inputs and targets have rows of their own, of each."""
        shares = self._costs[block.examples].mean(axis=0) * len(block.examples) / block.num_rows / self._capacities
        named = zip(("inputs ", "targets ") if len(shares) > 1 else ("",), shares, strict=True)
        return ", ".join(f"{name}{100 * share:.1f} %" for name, share in named)
