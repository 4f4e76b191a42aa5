"""Preprocessing against its tokenizer alone, with the same number of processes, in the same run.

    python benchmarks/preprocess.py --workers 2 --output benchmarks/results/preprocess.json

The peer has the texts in memory and drops the ids: what remains is the least that any tool can take. Rows of the table:

    tokenizer alone   forked processes that encode blocks of documents from a shared counter
    preprocess()      reading, JSON, encoding, writing and syncing the three files
    whole command     the same with the start of Python and the imports

The corpus is the Python standard library's documentation, repeated; the vocabulary is learnt from it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron.basics.atomic_files import write_json
from megatron.data.preprocess import preprocess
from megatron.data.preprocess_options import PreprocessOptions, TextInputOptions
from megatron.tokenization.options import MODEL_TYPES, TrainTokenizerOptions
from megatron.tokenization.tokenizer import Tokenizer, load_tokenizer
from megatron.tokenization.train import train_to_files

ROOT = Path(__file__).parents[1]
DOCUMENTS_AT_ONCE = 300  # about the megabyte that the tool hands to a worker


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="Default: all cores.")
    parser.add_argument("--megabytes", type=int, default=64, help="Size of the corpus. Default: %(default)s.")
    parser.add_argument("--model-type", choices=MODEL_TYPES, default="unigram", help="Default: %(default)s.")
    parser.add_argument("--vocab-size", type=int, default=8192, help="Default: %(default)s.")
    parser.add_argument("--repeats", type=int, default=5, help="Rounds; the table has medians. Default: %(default)s.")
    parser.add_argument("--output", help="JSON file for the figures.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments)
    print_table(figures)
    if arguments.output:
        write_json(arguments.output, figures)


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each row, round by round so that a busy machine hits all rows alike."""
    texts, corpus = make_corpus(folder, arguments.megabytes)
    options = TrainTokenizerOptions(
        output_prefix=str(folder / "tokenizer"), vocab_size=arguments.vocab_size, model_type=arguments.model_type
    )
    train_to_files(iter(set(texts)), options)
    tokenizer_model = str(folder / "tokenizer.model")
    tokenizer = load_tokenizer("SentencePieceTokenizer", tokenizer_model)
    output = PreprocessOptions(
        output_prefix=str(folder / "out"), tokenizer_model=tokenizer_model, workers=arguments.workers, append_eod=True
    )
    command = [sys.executable, "tools/preprocess_data.py", "--input", str(corpus), "--append-eod"]
    command += ["--output-prefix", str(folder / "out"), "--tokenizer-model", tokenizer_model]
    command += ["--workers", str(arguments.workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    rows: dict[str, Callable[[], object]] = {
        "tokenizer alone": lambda: encode_alone(tokenizer, texts, arguments.workers),
        "preprocess()": lambda: preprocess(TextInputOptions(input=[str(corpus)]), output, tokenizer),
        "whole command": lambda: subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(arguments.repeats):
        for name, work in rows.items():
            started, cpu_started = time.perf_counter(), cpu_time()
            work()
            seconds[name].append(time.perf_counter() - started)
            cpu_seconds[name].append(cpu_time() - cpu_started)
    return {
        "benchmark": "preprocess",
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "workers": arguments.workers,
        "model_type": arguments.model_type,
        "vocab_size": arguments.vocab_size,
        "text_megabytes": sum(len(text.encode()) for text in texts) / 1e6,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "ratio": ratios(seconds),
        "cpu_ratio": ratios(cpu_seconds),
    }


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """How fast each row is, as a share of the peer's speed in the same round; the median of the rounds."""
    peer = seconds["tokenizer alone"]
    return {
        name: statistics.median(alone / taken for alone, taken in zip(peer, measured, strict=True))
        for name, measured in seconds.items()
    }


def cpu_time() -> float:
    """Seconds that this process and its ended children computed."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def make_corpus(folder: Path, megabytes: int) -> tuple[list[str], Path]:
    """The texts, and the JSONL file that holds them."""
    script = ROOT / "examples" / "quickstart" / "stdlib_corpus.py"
    command = [sys.executable, str(script), "--output-folder", str(folder)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    once = (folder / "train.jsonl").read_text("utf-8").splitlines()
    copies = max(1, megabytes * 10**6 // sum(map(len, once)))
    corpus = folder / "corpus.jsonl"
    corpus.write_text("\n".join(once * copies) + "\n", "utf-8")
    return [json.loads(line)["text"] for line in once] * copies, corpus


def encode_alone(tokenizer: Tokenizer, texts: list[str], workers: int) -> None:
    """Encode all texts on `workers` forked processes and drop the ids."""
    context = multiprocessing.get_context("fork")
    following = context.Value("q", 0)

    def work() -> None:
        while True:
            with following.get_lock():
                first = following.value
                following.value += DOCUMENTS_AT_ONCE
            if first >= len(texts):
                return
            tokenizer.encode_batch(texts[first : first + DOCUMENTS_AT_ONCE])

    processes = [context.Process(target=work) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def print_table(figures: dict[str, Any]) -> None:
    """Medians. CPU seconds tell more than the clock where other programs run."""
    print(f"{figures['text_megabytes']:.0f} MB, {figures['workers']} workers, {figures['model_type']}, 1.00 = the peer")
    print(f"{'':18}{'seconds':>9}{'MB/s':>8}{'ratio':>8}{'CPU s':>9}{'ratio':>8}")
    for name, measured in figures["seconds"].items():
        median = statistics.median(measured)
        clock = f"{median:9.2f}{figures['text_megabytes'] / median:8.1f}{figures['ratio'][name]:8.2f}"
        computed = f"{statistics.median(figures['cpu_seconds'][name]):9.2f}{figures['cpu_ratio'][name]:8.2f}"
        print(f"{name:18}{clock}{computed}")


if __name__ == "__main__":
    main()
