"""How fast and how full examples of many data sets are packed into rows.

    python -m benchmarks.packed_examples
    TRIARCH_NO_NATIVE=1 python -m benchmarks.packed_examples --examples 200000 --far 1000
    python -m benchmarks.packed_examples --examples 200000 --far 1000 --target-length 100

T0's size: 17.3 million prompted examples of 38 data sets, with lengths like those of its tasks: a mixture of log-normal
distributions for questions, pairs of sentences, summaries of short and long texts, and reviews. Data sets are of very
different sizes, and those above T0's cap weigh as much as it. The figures are CPU seconds of one thread from nothing to
the first row, and on to a row far behind as a resume finds it; memory before rows are read; rows read a second; and
seconds to pack one block of examples, which in the second command Python does in the place of csrc/packing. Files are
sparse, take about 700 MB and are removed at the end.
"""

from __future__ import annotations

import argparse
import resource
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megatron.basics.native_extension import native_extension
from megatron.data.packed_pairs import LARGEST_BLOCK, ExampleRange, PackedPairs
from megatron.data.pair_file import open_pair_file
from megatron.data.pair_paths import END
from megatron.data.row_filler import PACKING, fill_rows
from megatron.records.room import Room

CAP = 500_000  # the largest weight of a data set
# Share of examples; median and spread (of the logarithm) of the tokens of inputs, then of targets.
KINDS = (
    (0.35, 60, 0.4, 3, 0.5),
    (0.20, 150, 0.5, 5, 0.8),
    (0.15, 250, 0.5, 40, 0.6),
    (0.15, 450, 0.6, 70, 0.5),
    (0.15, 700, 0.5, 12, 0.7),
)
INPUT_LENGTH = 1024


def main() -> None:
    """Run the benchmark and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=17_277_798, help="Default: %(default)s.")
    parser.add_argument("--data-sets", type=int, default=38, help="Default: %(default)s.")
    parser.add_argument("--far", type=int, default=1_000_000, help="The row far behind. Default: %(default)s.")
    parser.add_argument("--rows", type=int, default=3000, help="Rows to read. Default: %(default)s.")
    parser.add_argument("--target-length", type=int, default=256, help="Room for targets. Default: %(default)s.")
    arguments = parser.parse_args()
    rooms = rooms_of(arguments.target_length)
    with tempfile.TemporaryDirectory() as folder:
        prefixes = write_data_sets(Path(folder), arguments.examples, arguments.data_sets, arguments.target_length)
        samples = range(arguments.far, arguments.far + arguments.rows)
        sources = {name: measure_start(name, room, prefixes, arguments.far) for name, room in rooms.items()}
        for name, room in rooms.items():
            measure_rows(name, room, sources[name], samples)
    for name, room in rooms.items():
        measure_packing(name, room, min(LARGEST_BLOCK, arguments.examples), arguments.target_length)


def rooms_of(target_length: int) -> dict[str, Room]:
    """Rows of a decoder and of an encoder-decoder, which hold the same longest example."""
    both = INPUT_LENGTH + target_length
    return {
        f"rows of {both}": Room(both + 1, both + 1, both + 1, 1),
        f"rows of {INPUT_LENGTH} and {target_length}": Room(INPUT_LENGTH, target_length, both),
    }


def write_data_sets(folder: Path, examples: int, data_sets: int, target_length: int) -> list[str]:
    """Data sets of very different sizes, whose tokens are zeros."""
    generator = np.random.default_rng(0)
    sizes = np.maximum(generator.dirichlet(np.full(data_sets, 0.7)) * examples, 100).astype(int)
    prefixes = []
    for number, size in enumerate(sizes):
        prefixes.append(str(folder / f"set{number}"))
        inputs, targets = lengths_like_t0(generator, int(size), target_length)
        write_sparse_file(f"{prefixes[-1]}_inputs", inputs)
        write_sparse_file(f"{prefixes[-1]}_targets", targets)
    return prefixes


def lengths_like_t0(generator: np.random.Generator, examples: int, target_length: int) -> list[NDArray[np.int64]]:
    """Tokens of inputs and of targets."""
    kinds = np.array(KINDS)
    drawn = kinds[generator.choice(len(kinds), examples, p=kinds[:, 0])]
    return [
        np.clip(np.exp(generator.normal(np.log(drawn[:, place]), drawn[:, place + 1])), 1, longest).astype(np.int64)
        for place, longest in ((1, INPUT_LENGTH), (3, target_length - END))
    ]


def write_sparse_file(prefix: str, lengths: NDArray[np.int64]) -> None:
    """A token file of zeros."""
    with open(f"{prefix}.bin", "wb") as file:
        file.truncate(2 * int(lengths.sum()))
    with open(f"{prefix}.idx", "wb") as file:
        file.write(struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, len(lengths), len(lengths) + 1))
        file.write(lengths.astype("<i4").tobytes())
        file.write((2 * (np.cumsum(lengths) - lengths)).astype("<i8").tobytes())
        file.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())


def measure_start(name: str, room: Room, prefixes: list[str], far: int) -> PackedPairs:
    """Print how long it takes to come to the first row and to one far behind, and the memory of all so far."""
    begun = time.process_time()
    parts = []
    for prefix in prefixes:
        file = open_pair_file(prefix)
        parts.append(ExampleRange(file, range(file.num_examples), float(min(file.num_examples, CAP))))
    source = PackedPairs(parts, room, seed=1)
    started = time.process_time()
    source.examples(far)
    found = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{name}: {started - begun:.1f} s to the first row, {found - started:.1f} s on to row {far:,}, "
        f"{memory:.2f} GB at most"
    )
    return source


def measure_rows(name: str, room: Room, source: PackedPairs, samples: range) -> None:
    """Print how full rows are, and how many are read in a second once they are in memory."""
    windows = [window for sample in samples for window in source.windows(sample)]
    inputs = sum(window.num_inputs or 0 for window in windows)
    both = sum(len(window.tokens) + 1 for window in windows)
    begun = time.process_time()
    for sample in samples:
        source.windows(sample)
    rate = len(samples) / (time.process_time() - begun)
    capacities = np.array([room.inputs, room.targets] if room.is_split else [room.total])
    full = np.array([inputs, both - inputs] if room.is_split else [both]) / len(samples) / capacities
    print(f"{name}: {' and '.join(f'{share:.1%}' for share in full)} full, {rate:,.0f} rows/s")


def measure_packing(name: str, room: Room, examples: int, target_length: int) -> None:
    """Print how long one block of examples takes, and by what it is packed."""
    inputs, targets = lengths_like_t0(np.random.default_rng(1), examples, target_length)
    sizes = np.stack([inputs, targets + END], axis=1).astype(np.int32)
    begun = time.process_time()
    if room.is_split:
        fill_rows(sizes, (room.inputs, room.targets))
    else:
        fill_rows(sizes.sum(axis=1, keepdims=True, dtype=np.int32), (room.total,))
    seconds = time.process_time() - begun
    by = "plain Python" if native_extension(*PACKING) is None else "csrc/packing"
    print(f"{name}: {seconds:.3f} s to pack {examples:,} examples by {by}")


if __name__ == "__main__":
    main()
