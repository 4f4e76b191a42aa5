"""Span corruption and token masking on one core against numpy, in the same run.

    python benchmarks/span_corruption.py --output benchmarks/results/span_corruption.json

    rows by numpy      the way that T5's description is mostly written down: a row at a time, borders drawn by
                       shuffling, spans numbered by cumulative sums; masking: a uniform number for each token
    twin               what does the work where csrc/ is not built
    batches            the native code, --rows rows a call
    single rows        the same, called as the loader does: one window a call, through the objective

Million raw tokens for each CPU second of the thread, so that other work on the machine disturbs less: medians of
--repeats rounds, in each of which all ways take their turn. Density 0.15, mean span 3, 568 tokens a row; masking of
0.15 of 512 tokens a row.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from megatron.basics.atomic_files import write_json
from megatron.basics.draws import Draws
from megatron.objectives.native import native_corruption
from megatron.objectives.noise_spans import corrupt_rows, corrupt_rows_in_numpy
from megatron.objectives.span_corruption import corrupt
from megatron.objectives.token_masking import TokenMasking

RAW, NOISE, SPANS, MASKED_ROW, VOCABULARY, MASK, FIRST = 568, 85, 28, 512, 32_000, 4, 10
SENTINELS = np.arange(VOCABULARY + 99, VOCABULARY - 1, -1, dtype=np.int32)

Rates = dict[str, float]


def main() -> int:
    """Run the benchmark and print the tables; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256, help="Rows a native call. Default: %(default)s.")
    parser.add_argument("--repeats", type=int, default=21, help="Rounds. Default: %(default)s.")
    parser.add_argument("--output", help="JSON file for the figures.")
    arguments = parser.parse_args()
    if native_corruption() is None:
        print("span_corruption: csrc/ is not built, so there is nothing to measure; run `make setup`.")
        return 2
    figures = {
        "machine": platform.processor() or platform.machine(),
        "numpy": np.__version__,
        "rows": arguments.rows,
        "span_corruption": measure(span_corruption_ways(arguments.rows), arguments.repeats),
        "token_masking": measure(token_masking_ways(arguments.rows), arguments.repeats),
    }
    for title in ("span_corruption", "token_masking"):
        print_table(title, figures[title])
    if arguments.output:
        write_json(arguments.output, figures)
    return 0


def span_corruption_ways(rows: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """Tokens of a round and its work, by name."""
    tokens, seeds = inputs_of(rows, RAW)
    generator = np.random.default_rng(0)
    few = min(rows, 64)
    return {
        "rows by numpy": (few * RAW, lambda: [plain_spans(row, generator) for row in tokens[:few]]),
        "twin": (few * RAW, lambda: corrupt_rows_in_numpy(tokens[:few], seeds[:few], SENTINELS, NOISE, SPANS)),
        "single rows": (
            rows * RAW,
            lambda: [corrupt(row, Draws(number), SENTINELS, NOISE, SPANS) for number, row in enumerate(tokens)],
        ),
        "batches": (rows * RAW, lambda: corrupt_rows(tokens, seeds, SENTINELS, NOISE, SPANS)),
    }


def token_masking_ways(rows: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """Tokens of a round and its work, by name."""
    tokens, seeds = inputs_of(rows, MASKED_ROW)
    tokens[:, 0] = tokens[:, -1] = 2  # rows have special tokens at both ends
    generator = np.random.default_rng(0)
    masking = TokenMasking(
        vocabulary_size=VOCABULARY, mask_token=MASK, left_alone=range(FIRST), random_tokens=range(FIRST, VOCABULARY)
    )
    few = min(rows, 64)
    return {
        "rows by numpy": (few * MASKED_ROW, lambda: [plain_masking(row, generator) for row in tokens[:few]]),
        "twin": (few * MASKED_ROW, lambda: masking.in_numpy(tokens[:few], seeds[:few])),
        "batches": (rows * MASKED_ROW, lambda: masking(tokens, seeds)),
    }


def inputs_of(rows: int, length: int) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
    """Random text and seeds."""
    generator = np.random.default_rng(1)
    return generator.integers(FIRST, VOCABULARY, (rows, length), np.int32), generator.integers(
        0, 2**64, rows, np.uint64
    )


def plain_spans(tokens: NDArray[np.int32], generator: np.random.Generator) -> tuple[NDArray[np.int32], ...]:
    """Inputs and targets of one row."""

    def lengths(items: int) -> NDArray[np.int64]:
        is_border = np.arange(items - 1) < SPANS - 1
        generator.shuffle(is_border)
        span = np.cumsum(np.concatenate([[False], is_border]))
        return np.bincount(span, minlength=SPANS)

    interleaved = np.stack([lengths(RAW - NOISE), lengths(NOISE)], axis=1).reshape(-1)
    is_begin = np.zeros(RAW, np.int64)
    is_begin[np.cumsum(interleaved)[:-1]] = 1
    is_noise = np.cumsum(is_begin) % 2 == 1

    def with_sentinels(hidden: NDArray[np.bool_]) -> NDArray[np.int32]:
        begins = hidden & ~np.concatenate([[False], hidden[:-1]])
        marked = np.where(begins, VOCABULARY + 100 - np.cumsum(begins), tokens)
        return marked[begins | ~hidden].astype(np.int32)

    return with_sentinels(is_noise), with_sentinels(~is_noise)


def plain_masking(
    tokens: NDArray[np.int32], generator: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Inputs and chosen positions of one row, each token chosen by itself."""
    is_chosen = (generator.random(len(tokens)) < 0.15) & (tokens >= FIRST)
    fate = generator.random(len(tokens))
    inputs = np.where(is_chosen & (fate < 0.8), MASK, tokens)
    others = generator.integers(FIRST, VOCABULARY, len(tokens))
    return np.where(is_chosen & (fate >= 0.9), others, inputs).astype(np.int32), is_chosen


def measure(ways: dict[str, tuple[int, Callable[[], object]]], repeats: int) -> Rates:
    """Million tokens for each CPU second by name."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for work in (work for _, work in ways.values()):
        work()
    for _ in range(repeats):
        for name, (_, work) in ways.items():
            begin = time.thread_time()
            work()
            seconds[name].append(time.thread_time() - begin)
    return {name: tokens / statistics.median(seconds[name]) / 1e6 for name, (tokens, _) in ways.items()}


def print_table(title: str, rates: Rates) -> None:
    """Rates, and how many times that of plain numpy they are."""
    print(f"{title.replace('_', ' '):<18}{'Mtok/s':>10}{'times':>8}")
    for name, rate in rates.items():
        print(f"{name:<18}{rate:>10.1f}{rate / rates['rows by numpy']:>8.1f}")
    print()


if __name__ == "__main__":
    sys.exit(main())
