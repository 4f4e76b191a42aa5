"""Documents packed into rows: each an example of its own, cut only where it is longer than a row takes."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.basics.seeds import seed_for
from megatron.data.permutation import UNSHUFFLED, Permutation
from megatron.data.row_plan import RowPlan
from megatron.data.splits import TokenRange
from megatron.data.token_file import TokenFile
from megatron.objectives.protocol import Objective
from megatron.records.room import Room, Size
from megatron.records.window import Window

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PieceSizes:
    """What pieces of text take of a row.

    costs: int64 [longest + 1, 3], inputs, targets and both that a piece of each length takes at most. capacity: int64
    [3], what a row has of them. overlap: tokens at the end of a piece with which the next piece of its document begins,
    because they are predicted here and predict there. is_exact: no piece takes less.
    """

    costs: NDArray[np.int64]
    capacity: NDArray[np.int64]
    overlap: int
    is_exact: bool = True

    @property
    def longest(self) -> int:
        """Tokens of the longest piece that a row takes."""
        return len(self.costs) - 1


def piece_sizes(objective: Objective, room: Room) -> PieceSizes:
    """The sizes that an objective makes of pieces, up to the longest that fits a row by itself."""
    costs = [Size.of(0, 0)]
    for length in range(1, objective.window_length + 1):
        size = objective.size(length)
        if not room.holds(size):
            break
        costs.append(size)
    return PieceSizes(
        costs=np.array(costs, np.int64),
        capacity=np.array([room.inputs, room.targets, room.total], np.int64),
        overlap=objective.window_length - objective.stride,
        is_exact=objective.keeps_text,
    )


class PackedDocuments:
    """Rows of whole documents of one split of one file; a document that is too long for a row is cut into pieces.

    A document of n tokens becomes as few pieces as possible: all as long as a row takes but for a shorter one, whose
    place among them is another in each epoch. So the lengths are the same in every epoch and one plan of rows (see
    `RowPlan`) serves them all; which of the pieces of a length fills which of its places, and the order of the rows,
    are permutations computed from (seed, epoch). Any sample is found in O(pieces of its row). shuffled=False
    (validation): every epoch is the same, whatever the seed.

    Cost: 4 bytes a document, 12 more for one that is cut; about 0.5 seconds for each million documents at the start,
    which every process spends for itself. Raises UserError when the split has no tokens.
    """

    def __init__(
        self,
        file: TokenFile,
        tokens: TokenRange,
        sizes: PieceSizes,
        *,
        seed: int,
        shuffled: bool = True,
        name: str = "train",
    ) -> None:
        if not tokens.num_tokens:
            raise UserError(f"{file.path} holds 0 tokens for {name}; add text or change --split.")
        self.file, self.tokens, self.sizes = file, tokens, sizes
        self._seed, self._shuffled = seed if shuffled else UNSHUFFLED, shuffled
        self._stride = sizes.longest - sizes.overlap
        documents = file.index.documents_between(tokens.begin, tokens.end)
        self._first_document = documents.start
        pieces, short = self._cut(file.index.document_lengths(documents))
        short_counts = np.bincount(short, minlength=sizes.longest + 1)
        # Documents by the length of their shorter piece; those without tokens come first and are never looked up.
        self._by_length = np.argsort(short, kind="stable").astype(np.uint32)
        self._first_of_length = (np.cumsum(short_counts) - short_counts).tolist()
        short_counts[0] = 0
        self._num_short: list[int] = short_counts.tolist()
        self._cut_documents = np.flatnonzero(pieces > 1).astype(np.uint32)
        self._ends_of_long_pieces = np.cumsum(pieces[self._cut_documents] - 1)
        counts = short_counts.astype(np.int64)
        counts[-1] += self._ends_of_long_pieces[-1] if len(self._cut_documents) else 0
        self.counts = counts
        self.plan = RowPlan(counts, sizes.costs, sizes.capacity)
        # Threads each keep the epoch that they are in: near its end they read from two.
        self._epochs = threading.local()
        logger.info(
            "%s: %s documents of %s (%s of them cut) packed into %s rows; rows are %s full",
            name,
            f"{int(short_counts.sum()):,}",
            file.path,
            f"{len(self._cut_documents):,}",
            f"{self.plan.num_rows:,}",
            described(self.plan, sizes),
        )

    @property
    def samples_per_epoch(self) -> float:
        """How many rows an epoch has."""
        return float(self.plan.num_rows)

    def windows(self, sample: int) -> list[Window]:
        """The pieces in the row of a sample: tokens int32 [length], `index` = sample.

        Raises UserError when the tokens are not of the tokenizer's vocabulary (see `TokenFile.read`).
        """
        epoch, place = divmod(sample, self.plan.num_rows)
        self._enter(epoch if self._shuffled else 0)
        return [self._window(length, number, sample) for length, number in self.plan.pieces(self._epochs.order[place])]

    def _enter(self, epoch: int) -> None:
        if getattr(self._epochs, "number", None) != epoch:
            self._epochs.number = epoch
            self._epochs.order = Permutation(self.plan.num_rows, self._seed, "row order", epoch)
            self._epochs.cuts = seed_for(self._seed, "cuts", epoch)
            self._epochs.pieces = {}

    def _window(self, length: int, number: int, sample: int) -> Window:
        """The piece that in this epoch fills place `number` of those for its length."""
        pieces = self._epochs.pieces
        if length not in pieces:
            pieces[length] = Permutation(int(self.counts[length]), self._seed, "pieces", length, self._epochs.number)
        begin, offset = self._place(length, pieces[length][number])
        starts = np.zeros(0 if offset else 1, np.int32)
        return Window(self.file.read(begin + offset, begin + offset + length), starts, sample)

    def _place(self, length: int, piece: int) -> tuple[int, int]:
        """(where in the file its document begins, where in the document it begins) for a piece of a length."""
        is_short = piece < self._num_short[length]
        if is_short:
            document = self._by_length[self._first_of_length[length] + piece]
        else:
            piece -= self._num_short[length]
            number = int(np.searchsorted(self._ends_of_long_pieces, piece, side="right"))
            document = self._cut_documents[number]
            piece -= int(self._ends_of_long_pieces[number - 1]) if number else 0
        document = self._first_document + int(document)
        begin = self.file.index.document_offset(document)
        num_tokens = self.file.index.document_offset(document + 1) - begin
        if num_tokens <= self.sizes.longest:
            return begin, 0
        num_pieces = -(-(num_tokens - self.sizes.overlap) // self._stride)
        # The shorter piece is behind this many long ones.
        before_short = Draws(self._epochs.cuts + document).below(num_pieces)
        if is_short:
            return begin, before_short * self._stride
        step_over_short = num_tokens - (num_pieces - 1) * self._stride - self.sizes.overlap
        return begin, piece * self._stride + (step_over_short if piece >= before_short else 0)

    def _cut(self, lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.integer]]:
        """Pieces of each document, and tokens of its shorter piece, in a type that is sorted in linear time."""
        pieces = np.maximum(-(-(lengths - self.sizes.overlap) // self._stride), 1)
        short = lengths - (pieces - 1) * self._stride
        return pieces, short.astype(np.uint16 if self.sizes.longest < 1 << 16 else np.uint32)


def described(plan: RowPlan, sizes: PieceSizes) -> str:
    """`99.3 %`, where inputs and targets have rows of their own, each, and `at most` before what is not exact."""
    inputs, targets, total = plan.fullness
    shares = f"{total:.1%}"
    if sizes.capacity[0] + sizes.capacity[1] == sizes.capacity[2]:
        shares += f" (inputs {inputs:.1%}, targets {targets:.1%})"
    return ("" if sizes.is_exact else "at most ") + shares.replace("%", " %")
