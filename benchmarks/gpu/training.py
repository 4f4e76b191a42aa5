"""Part `train`: pretrain_gpt.py itself, in every precision, against the CPU."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.toy_corpus import write_corpus, write_vocabulary
from benchmarks.gpu.workplace import Line, PartFailed, Workplace

LOSS = "lm loss"
# What float32 sums in another order may change in the losses of a few steps; one wrong operation changes more.
FLOAT32_TOLERANCE = 1e-4
# Losses are means over thousands of tokens: the rounding of the 16-bit types averages out to less than this.
ROUNDING_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Corpus:
    """A vocabulary and token file for the runs of one part, and the sizes that fit the device."""

    vocabulary: Path
    prefix: Path
    quick: bool

    @classmethod
    def make(cls, place: Workplace) -> Corpus:
        """Write both into the folder of the part."""
        vocabulary = write_vocabulary(place.folder / "vocabulary")
        prefix = write_corpus(place.folder / "corpus", vocabulary, 40_000 if place.quick else 1_000_000)
        return cls(vocabulary, prefix, place.quick)

    def flags(self) -> list[str]:
        """Model, data and schedule: the same for every run, so that one can go on where another stopped."""
        sizes = [1, 32, 2, 32, 4] if self.quick else [4, 256, 4, 256, 16]
        names = ["num-layers", "hidden-size", "num-attention-heads", "seq-length", "global-batch-size"]
        shape = [word for name, size in zip(names, sizes, strict=True) for word in (f"--{name}", str(size))]
        return [
            *shape,
            *("--micro-batch-size", "2" if self.quick else "8"),
            *("--train-data-path", str(self.prefix), "--valid-data-path", str(self.prefix)),
            *("--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(self.vocabulary)),
            *("--lr", "3e-3", "--lr-decay-style", "constant", "--eval-iters", "2", "--log-interval", "5"),
        ]


def pretrain(place: Workplace, corpus: Corpus, name: str, *flags: str, device: str, save: Path) -> list[dict[str, Any]]:
    """Run pretrain_gpt.py; the lines of metrics.jsonl that it added."""
    before = len(read_metrics(save))
    place.python("pretrain_gpt.py", *corpus.flags(), "--device", device, "--save", str(save), *flags, name=name)
    added = read_metrics(save)[before:]
    if not added:
        raise PartFailed(f"{name} wrote no step into metrics.jsonl")
    return added


def read_metrics(run_folder: Path) -> list[dict[str, Any]]:
    """The training steps in metrics.jsonl."""
    path = run_folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [step for step in map(json.loads, lines) if LOSS in step]


def losses_of(steps: Sequence[dict[str, Any]]) -> list[float]:
    """Their losses; PartFailed where one is not finite."""
    losses = [step[LOSS] for step in steps]
    if not all(isinstance(loss, float) and math.isfinite(loss) for loss in losses):
        raise PartFailed(f"losses are not finite: {losses}")
    return losses


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest relative difference of two curves; infinity where they have not the same length."""
    if len(one) != len(other):
        return math.inf
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))


def train(place: Workplace) -> None:
    """bfloat16 learns; the other precisions begin as float32 on CPU does."""
    corpus = Corpus.make(place)
    iterations = "6" if place.quick else "100"
    folder = place.folder
    steps = pretrain(
        place, corpus, "bf16", "--bf16", "--train-iters", iterations, device=place.device, save=folder / "bf16"
    )
    _say_learned(place, steps)
    few = ("--train-iters", "5")
    expected = losses_of(pretrain(place, corpus, "fp32-cpu", *few, device="cpu", save=folder / "fp32-cpu"))
    for name, flags, tolerance in (
        ("float32", (), FLOAT32_TOLERANCE),
        ("bfloat16", ("--bf16",), ROUNDING_TOLERANCE),
        ("float16", ("--fp16",), ROUNDING_TOLERANCE),
    ):
        losses = losses_of(
            pretrain(place, corpus, f"{name}-few", *few, *flags, device=place.device, save=folder / f"{name}-few")
        )
        difference = largest_difference(losses, expected)
        place.say(
            Line(
                check=f"5 losses in {name} against float32 on CPU",
                outcome=f"largest relative difference {difference:.1e}, at most {tolerance:.0e}",
                passed=difference <= tolerance,
                figures={"losses": losses, "expected": expected, "difference": difference},
            )
        )


def _say_learned(place: Workplace, steps: Sequence[dict[str, Any]]) -> None:
    losses = losses_of(steps)
    second_half = steps[len(steps) // 2 :]
    speed = sorted(step["tokens-per-second"] for step in second_half)[len(second_half) // 2]
    skipped = sum(step["skipped"] or step["nonfinite"] is not None for step in steps)
    wanted = 0.0 if place.quick else 1.0
    place.say(
        Line(
            check=f"pretrain_gpt.py --bf16, {len(steps)} steps",
            outcome=f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, {speed:,.0f} tokens/s, {skipped} steps skipped",
            passed=losses[0] - losses[-1] > wanted and skipped == 0,
            figures={"losses": losses, "tokens_per_second": speed, "skipped": skipped},
        )
    )
