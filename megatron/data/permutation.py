"""A shuffled order that is computed, not stored: element i of a permutation of [0, n) in constant time and memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.basics.seeds import generator_for

LARGEST = 1 << 48
ROUNDS = 8
UNSHUFFLED = 0  # in the place of a seed: validation reads the same rows in all runs that are compared
_WORD = 0xFFFFFFFF
_CHUNK = 1 << 14  # indices that are worked on at a time, so that every intermediate stays in the nearest caches

Words = Any  # an int, or an array of uint32; one text serves both


class Permutation:
    """A pseudo-random permutation of [0, size), one for each key (seed, *purpose).

    A Feistel network on the smallest power of two that holds `size`; what falls outside is sent through again until it
    falls inside ("cycle walking", fewer than two passes on average from 9 elements on). Bijective for every key.
    size: 1 to 2^48.
    Source: Luby and Rackoff 1988; Black and Rogaway 2002, "Ciphers with arbitrary finite domains".
    """

    def __init__(self, size: int, seed: int, *purpose: int | str) -> None:
        if not 1 <= size <= LARGEST:
            raise ValueError(f"a permutation has 1 to 2^48 elements, not {size}")
        self.size = size
        bits = max((size - 1).bit_length(), 4)  # halves of one bit would leave too few permutations to choose from
        self._low_bits = bits // 2
        self._low_mask = (1 << self._low_bits) - 1
        self._high_mask = (1 << (bits - self._low_bits)) - 1
        generator = generator_for(seed, "permutation", *purpose)
        self._keys = [int(key) for key in generator.integers(0, 1 << 32, ROUNDS)]

    def __getitem__(self, index: int) -> int:
        """The element at `index`, 0 <= index < size."""
        if not 0 <= index < self.size:
            raise IndexError(f"{index} is not in a permutation of {self.size}")
        while True:
            high, low = self._feistel(index >> self._low_bits, index & self._low_mask)
            index = high << self._low_bits | low
            if index < self.size:
                return index

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The elements at many indices: int64 [k] -> int64 [k]."""
        if len(indices) and not (indices.min() >= 0 and indices.max() < self.size):
            raise IndexError(f"indices reach outside of a permutation of {self.size}")
        result = np.empty(len(indices), np.int64)
        for begin in range(0, len(indices), _CHUNK):
            result[begin : begin + _CHUNK] = self._take_chunk(indices[begin : begin + _CHUNK])
        return result

    def _take_chunk(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        result = self._pass(indices)
        outside = np.flatnonzero(result >= self.size)
        while len(outside):
            again = self._pass(result[outside])
            result[outside] = again
            outside = outside[again >= self.size]
        return result

    def _pass(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Once through the network; halves have at most 24 bits, so 32-bit words, twice as fast, hold them."""
        high = (indices >> self._low_bits).astype(np.uint32)
        low = (indices & self._low_mask).astype(np.uint32)
        high, low = self._feistel(high, low)
        return high.astype(np.int64) << self._low_bits | low

    def _feistel(self, high: Words, low: Words) -> tuple[Words, Words]:
        """All rounds, for numbers and arrays alike: arrays wrap at 32 bits by themselves, numbers by the mask."""
        for low_key, high_key in zip(self._keys[::2], self._keys[1::2], strict=True):
            low = low ^ (_scramble(high, low_key) & self._low_mask)
            high = high ^ (_scramble(low, high_key) & self._high_mask)
        return high, low


def _scramble(word: Words, key: int) -> Words:
    """A keyed 32-bit hash: the finaliser of MurmurHash3 (Appleby). One multiplication less is uneven at small sizes."""
    word = word ^ key
    word *= 0x85EBCA6B
    word &= _WORD
    word ^= word >> 13
    word *= 0xC2B2AE35
    word &= _WORD
    word ^= word >> 16
    return word
