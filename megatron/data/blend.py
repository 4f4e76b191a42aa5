"""Weighted blends of several sources: which one gives sample i is a function of (weights, i), with no state."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from megatron.data.windows import WindowSource
from megatron.records.window import Window


@dataclass(frozen=True)
class _Fork:
    """A node of the tree: `left_weight` of every `weight` samples go left, the others right."""

    left_weight: int
    weight: int
    left: _Fork | int  # a source's number
    right: _Fork | int

    def left_of(self, count: int) -> int:
        """How many of the first `count` samples go left: the share, rounded to the nearest."""
        return (2 * count * self.left_weight + self.weight) // (2 * self.weight)


class BlendOrder:
    """Deals the samples 0, 1, 2, ... to sources by weight.

    Sources are the leaves of a Huffman tree. At each fork, of the first c samples that arrive there, the rounded share
    of c goes left: a closed form, so both the source of sample i and its number within the source are found in
    O(depth) for any i, in exact integers. After any number n of samples every source k has given w_k n, to within 2:
    rounding at one fork is off by at most 1/2 and is passed down in proportion to weights that grow at least like
    Fibonacci's numbers towards the root, and 1/2 (1 + 1 + 1/2 + 1/3 + 1/5 + ...) < 1.7.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        if not weights or any(weight <= 0 for weight in weights):
            raise ValueError(f"weights must be above 0, not {list(weights)}")
        exact = [Fraction(weight) for weight in weights]
        shared = max(weight.denominator for weight in exact)  # denominators of floats are powers of two
        nodes: list[tuple[int, int, _Fork | int]] = [
            (int(weight * shared), number, number) for number, weight in enumerate(exact)
        ]
        heapq.heapify(nodes)
        for number in range(len(weights), 2 * len(weights) - 1):
            (light, _, left), (heavy, _, right) = heapq.heappop(nodes), heapq.heappop(nodes)
            heapq.heappush(nodes, (light + heavy, number, _Fork(light, light + heavy, left, right)))
        self._root = nodes[0][2]
        self._num_sources = len(weights)

    def __getitem__(self, sample: int) -> tuple[int, int]:
        """(source, how many samples that source has given before this one)."""
        node = self._root
        while isinstance(node, _Fork):
            before = node.left_of(sample)
            if node.left_of(sample + 1) > before:
                node, sample = node.left, before
            else:
                node, sample = node.right, sample - before
        return node, sample

    def given(self, count: int) -> list[int]:
        """How many of the first `count` samples each source gives."""
        counts = [0] * self._num_sources
        unseen = [(self._root, count)]
        while unseen:
            node, arrived = unseen.pop()
            if isinstance(node, _Fork):
                left = node.left_of(arrived)
                unseen += [(node.left, left), (node.right, arrived - left)]
            else:
                counts[node] = arrived
        return counts


class Blend:
    """Several sources as one, each by its weight (any positive numbers; only their ratios count)."""

    def __init__(self, sources: Sequence[WindowSource], weights: Sequence[float]) -> None:
        self.sources = list(sources)
        self._shares = [weight / sum(weights) for weight in weights]
        self._order = BlendOrder(weights)

    @property
    def samples_per_epoch(self) -> float:
        """Samples until the source that is used up first has been seen once."""
        return min(source.samples_per_epoch / share for source, share in zip(self.sources, self._shares, strict=True))

    def windows(self, sample: int) -> Sequence[Window]:
        """The windows of a sample; their `index` is the number of the sample in the blend."""
        source, number = self._order[sample]
        return [replace(window, index=sample) for window in self.sources[source].windows(number)]
