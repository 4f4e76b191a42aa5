"""Sample order and loader against what other trainers do, in the same run.

    python benchmarks/data_order.py --output benchmarks/results/data_order.json

Two tables. Start: CPU seconds from nothing to the first batch of eight.

    computed order     Triarch: files opened and checked, a batch from the last of 1,000 epochs of 10^9 samples
    stored order       megatron-core's index builder (C++) and numpy's shuffle for --stored-samples samples, in memory

Rows: millions of tokens a second for each CPU second of one thread, rows of --seq-length positions, random order.

    plain slices       nanoGPT's way: memory map, two int64 slices a row, stacked; no documents, no masks, random draws
    windows            Triarch: order, tokens, document starts and the vocabulary check
    batches            the same up to int64 batches with labels, positions, loss mask and key intervals by document

The CPU time of the thread is what counts, so that other work on the machine disturbs less. Files are sparse or random.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megatron.architectures.causal_decoder import CausalDecoder
from megatron.architectures.row_rules import RowRules
from megatron.basics.atomic_files import write_json
from megatron.data.batch_positions import BatchGeometry
from megatron.data.loader import Loader
from megatron.data.options import DataOptions
from megatron.data.rows import Rows
from megatron.data.sources import WindowRules, build_sources
from megatron.data.windows import WindowSource
from megatron.objectives.full_lm import FullLM

VOCABULARY = 50_000
EPOCHS, SAMPLES_PER_EPOCH = 1_000, 10**9
SHORT_ROW = 8  # positions; keeps the sparse file of 10^9 samples within what every file system takes
MICRO_BATCH = 8


def main() -> None:
    """Run the benchmark and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq-length", type=int, default=2048, help="Default: %(default)s.")
    parser.add_argument("--stored-samples", type=int, default=20_000_000, help="Default: %(default)s.")
    parser.add_argument("--documents", type=int, default=1_000_000, help="Documents of the large file. Default: 10^6.")
    parser.add_argument("--rows", type=int, default=4096, help="Rows a round. Default: %(default)s.")
    parser.add_argument("--repeats", type=int, default=5, help="Rounds; the tables have medians. Default: %(default)s.")
    parser.add_argument("--output", help="JSON file for the figures.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            "machine": platform.processor() or platform.machine(),
            "numpy": np.__version__,
            "start": measure_start(Path(folder), arguments),
            "million_tokens_per_cpu_second": measure_rows(Path(folder), arguments),
        }
    print_tables(figures)
    if arguments.output:
        write_json(arguments.output, figures)


def write_large_file(prefix: Path, documents: int) -> None:
    """A sparse corpus of zeros that holds SAMPLES_PER_EPOCH rows of SHORT_ROW positions, in equal documents."""
    length = SAMPLES_PER_EPOCH * SHORT_ROW // documents
    with open(f"{prefix}.bin", "wb") as file:
        file.truncate(2 * documents * length)
    with open(f"{prefix}.idx", "wb") as file:
        file.write(struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, documents, documents + 1))
        file.write(np.full(documents, length, "<i4").tobytes())
        file.write((np.arange(documents, dtype="<i8") * (2 * length)).tobytes())
        file.write(np.arange(documents + 1, dtype="<i8").tobytes())


def write_random_file(prefix: Path, tokens: int) -> None:
    """A corpus of random ids in documents of 500 tokens."""
    generator, length = np.random.default_rng(0), 500
    documents = tokens // length
    ids = generator.integers(0, VOCABULARY, documents * length).astype("<u2")
    Path(f"{prefix}.bin").write_bytes(ids.tobytes())
    with open(f"{prefix}.idx", "wb") as file:
        file.write(struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, documents, documents + 1))
        file.write(np.full(documents, length, "<i4").tobytes())
        file.write((np.arange(documents, dtype="<i8") * (2 * length)).tobytes())
        file.write(np.arange(documents + 1, dtype="<i8").tobytes())


def loader_of(prefix: Path, seq_length: int) -> tuple[WindowSource, Loader]:
    """Training source of a whole file, and the loader of a causal decoder on it that keeps documents apart."""
    architecture = CausalDecoder()
    rules = RowRules(seq_length=seq_length, end_token=0, reset_attention_mask=True, reset_position_ids=True)
    objective = FullLM(room=architecture.room(rules))
    window = WindowRules(window_length=objective.window_length, stride=objective.stride, seed=1)
    options = DataOptions(data_path=[str(prefix)], split="1")
    source = build_sources(options, window, vocabulary_size=VOCABULARY, splits=("train",))["train"]
    assert source is not None
    geometry = BatchGeometry(micro_batch_size=MICRO_BATCH)
    rows = Rows(source=source, objective=objective, arrange=partial(architecture.arrange, rules=rules), seed=1)
    return source, Loader(rows, geometry=geometry)


def measure_start(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds to the first batch, and what the process grew by in the first such start."""
    prefix = folder / "large"
    write_large_file(prefix, arguments.documents)

    def computed() -> None:
        _, loader = loader_of(prefix, SHORT_ROW)
        next(loader.microbatches(SAMPLES_PER_EPOCH * EPOCHS - MICRO_BATCH, 1))

    before = resident_bytes()
    computed()
    grown = resident_bytes() - before
    stored = arguments.stored_samples
    return {
        "computed_seconds": median_seconds(computed, arguments.repeats),
        "computed_resident_megabytes": grown / 1e6,
        "stored_samples": stored,
        "stored_seconds": median_seconds(lambda: stored_order(stored), min(arguments.repeats, 3)),
    }


def stored_order(samples: int) -> None:
    """What a trainer with an index computes before its first batch, files left out."""
    from megatron.core.datasets.helpers import build_sample_idx

    documents = np.arange(samples // 100, dtype=np.int32)
    sizes = np.full(len(documents), 100 * SHORT_ROW, np.int32)
    generator = np.random.default_rng(0)
    generator.shuffle(documents)
    build_sample_idx(sizes, documents, SHORT_ROW, 1, int(sizes.sum()))
    order = np.arange(samples, dtype=np.uint32)
    generator.shuffle(order)


def measure_rows(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Million tokens for each CPU second of one thread, round by round so that a busy machine hits all alike."""
    prefix, length, rows = folder / "rows", arguments.seq_length, arguments.rows
    write_random_file(prefix, 32 << 20)
    source, loader = loader_of(prefix, length)
    tokens = np.memmap(f"{prefix}.bin", np.uint16, mode="r")
    candidates: dict[str, Callable[[], object]] = {
        "plain slices": lambda: plain_slices(tokens, length, rows),
        "windows": lambda: [source.windows(sample) for sample in range(rows)],
        "batches": lambda: sum(1 for _ in loader.microbatches(0, rows // MICRO_BATCH)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(arguments.repeats):
        for name, candidate in candidates.items():
            seconds[name].append(cpu_seconds(candidate))
    return {name: rows * length / statistics.median(values) / 1e6 for name, values in seconds.items()}


def plain_slices(tokens: np.memmap, length: int, rows: int) -> None:
    """Batches of inputs and labels and nothing else."""
    generator = np.random.default_rng(0)
    for _ in range(rows // MICRO_BATCH):
        begins = generator.integers(0, len(tokens) - length - 1, MICRO_BATCH)
        torch.stack([torch.from_numpy(tokens[begin : begin + length].astype(np.int64)) for begin in begins])
        torch.stack([torch.from_numpy(tokens[begin + 1 : begin + 1 + length].astype(np.int64)) for begin in begins])


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this thread."""
    begin = time.thread_time()
    work()
    return time.thread_time() - begin


def median_seconds(work: Callable[[], None], repeats: int) -> float:
    """Median CPU seconds of this thread over repeats."""
    return statistics.median(cpu_seconds(work) for _ in range(repeats))


def resident_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def print_tables(figures: dict[str, Any]) -> None:
    """Both tables as text."""
    start, rows = figures["start"], figures["million_tokens_per_cpu_second"]
    print(f"{'start':<18}{'samples':>18}{'seconds':>10}")
    print(f"{'computed order':<18}{SAMPLES_PER_EPOCH * EPOCHS:>18,}{start['computed_seconds']:>10.3f}")
    print(f"{'stored order':<18}{start['stored_samples']:>18,}{start['stored_seconds']:>10.3f}")
    print(f"memory that the first computed start added: {start['computed_resident_megabytes']:.0f} MB")
    print(f"\n{'rows':<18}{'Mtok/s':>10}")
    for name, rate in rows.items():
        print(f"{name:<18}{rate:>10.1f}")


if __name__ == "__main__":
    main()
