"""Where samples come from, and windows of one split in an order that is a function of (seed, sample index)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from megatron.basics.errors import UserError
from megatron.basics.seeds import seed_for
from megatron.data.permutation import Permutation
from megatron.data.splits import TokenRange
from megatron.data.token_file import TokenFile
from megatron.records.window import Window


class WindowSource(Protocol):
    """Anything that gives the windows of any sample, at once and in any order. Safe to use from several threads."""

    def windows(self, sample: int) -> Sequence[Window]:
        """What goes into the row of sample 0, 1, 2, ... without end; an objective sees each window by itself."""

    @property
    def samples_per_epoch(self) -> float:
        """Samples until every token was seen about once."""


class SplitWindows:
    """Windows of `window_length` tokens at every `stride` tokens of one split of one file.

    The split is read as a ring: documents follow one another and the first follows the last, which is a boundary
    like any other. In each epoch the cuts begin at another token and the windows come in another order, both functions
    of (seed, epoch); so the cuts fall elsewhere each time. An epoch has num_tokens // stride windows; with
    window_length = stride + 1 each token is a label at most once, and fewer than `stride` are left out, others in each
    epoch. shuffled=False (validation): always cut from the first token, in the order of the file. parts_documents: a
    sample is not the window but what each document has of it, each by itself.

    Raises UserError when the split is shorter than one window.
    """

    def __init__(
        self,
        file: TokenFile,
        tokens: TokenRange,
        *,
        window_length: int,
        stride: int,
        seed: int,
        shuffled: bool = True,
        parts_documents: bool = False,
        name: str = "train",
    ) -> None:
        if not 1 <= stride <= window_length:
            raise ValueError(f"a stride of {stride} would leave gaps between windows of {window_length} tokens")
        if tokens.num_tokens < window_length:
            raise UserError(
                f"{file.path} holds {tokens.num_tokens:,} tokens for {name}, fewer than one window of "
                f"{window_length:,}; add text, lower --seq-length or change --split."
            )
        self.file, self.tokens = file, tokens
        self.window_length, self.stride = window_length, stride
        self.num_windows = tokens.num_tokens // stride
        self.parts_documents = parts_documents
        self._seed, self._shuffled = seed, shuffled
        # Threads each keep the epoch that they are in: near its end they read from two.
        self._epochs = threading.local()

    @property
    def samples_per_epoch(self) -> float:
        """How many windows an epoch has."""
        return float(self.num_windows)

    def windows(self, sample: int) -> Sequence[Window]:
        """The window of a sample, or its documents: tokens int32 [window_length] in all, `index` = sample.

        Raises UserError when the tokens are not of the tokenizer's vocabulary (see `TokenFile.read`).
        """
        epoch, place = divmod(sample, self.num_windows)
        begin = self._begin(epoch, place)
        first, end = self.tokens.begin + begin, self.tokens.begin + begin + self.window_length
        tokens, starts = self._read(first, min(end, self.tokens.end))
        if end > self.tokens.end:  # on round the ring
            rest, rest_starts = self._read(self.tokens.begin, end - self.tokens.num_tokens)
            starts = np.concatenate([starts, rest_starts + np.int32(len(tokens))])
            tokens = np.concatenate([tokens, rest])
        window = Window(tokens=tokens, document_starts=starts, index=sample)
        return window.documents() if self.parts_documents else (window,)

    def _read(self, first: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        return self.file.read(first, end), self.file.index.document_starts(first, end).astype(np.int32)

    def _begin(self, epoch: int, place: int) -> int:
        """Where in the split the window at a place of an epoch begins."""
        if not self._shuffled:
            return place * self.stride
        if getattr(self._epochs, "number", None) != epoch:
            self._epochs.number = epoch
            self._epochs.offset = seed_for(self._seed, "epoch offset", epoch) % self.tokens.num_tokens
            self._epochs.order = Permutation(self.num_windows, self._seed, "epoch order", epoch)
        return (self._epochs.offset + self._epochs.order[place] * self.stride) % self.tokens.num_tokens
