"""The command that says how much sooner an adapted run gets where a run from scratch ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from megatron.basics.errors import UserError
from megatron.basics.option import Options, option
from megatron.cli.flags import parse
from megatron.cli.loss_curves import values_by_iteration

DESCRIPTION = (
    "Compare runs from scratch with adapted ones: the tokens that each adapted run needed for the validation loss that "
    "its run from scratch ended with, and how many times fewer they are. Wang et al. 2022, section 5."
)


@dataclass(frozen=True, kw_only=True)
class AdaptationSpeedOptions(Options):
    """Which runs to compare."""

    group: ClassVar[str] = "comparison"

    scratch: list[str] = option([], "Run folders of runs from scratch.", metavar="RUN")
    adapted: list[str] = option([], "As many run folders of adapted runs, in the same order.", metavar="RUN")
    loss: str = option("lm loss", "Loss to compare, as metrics.jsonl names it.", metavar="NAME")

    def rules(self) -> Iterator[str]:
        """Runs come in pairs."""
        if not self.scratch:
            yield "--scratch is missing; give one or more run folders."
        elif len(self.scratch) != len(self.adapted):
            yield f"--adapted names {len(self.adapted)} runs and --scratch {len(self.scratch)}; give pairs."


SECTIONS: dict[str, type[Options]] = {"comparison": AdaptationSpeedOptions}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """tokens: (of the run from scratch, of the adapted run up to the same loss); the second None if never reached."""

    scratch: str
    adapted: str
    loss: float
    tokens: tuple[int, int | None]

    def row(self) -> tuple[str, ...]:
        """The cells of the table."""
        whole, needed = self.tokens
        counts = (f"{needed:,}", f"{whole / needed:.2f}x") if needed else ("not reached", "")
        return self.scratch, f"{self.loss:.4f}", f"{whole:,}", self.adapted, *counts


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError."""
    parsed = parse(sys.argv[1:] if argv is None else argv, SECTIONS, description=DESCRIPTION)
    options: AdaptationSpeedOptions = parsed["comparison"]
    comparisons = [
        compare(Path(scratch), Path(adapted), options.loss)
        for scratch, adapted in zip(options.scratch, options.adapted, strict=True)
    ]
    for line in table(comparisons):
        print(line)


def compare(scratch: Path, adapted: Path, loss: str) -> Comparison:
    """The last validation of `scratch` against the course of `adapted`. Raises UserError for runs without any."""
    tokens, final = _validations(scratch, loss)[-1]
    needed = tokens_to_reach(final, _validations(adapted, loss))
    return Comparison(scratch=scratch.name, adapted=adapted.name, loss=final, tokens=(tokens, needed))


def tokens_to_reach(loss: float, course: Sequence[tuple[int, float]]) -> int | None:
    """Tokens at which a course of (tokens, loss) first comes down to `loss`, on straight lines between its points.

    A course whose first point is below already counts that whole point: nobody knows how much sooner it was there.
    """
    if course[0][1] <= loss:
        return course[0][0]
    for (tokens, above), (later, below) in pairwise(course):
        if below <= loss:
            return round(tokens + (later - tokens) * (above - loss) / (above - below))
    return None


def table(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Lines of aligned columns under a heading."""
    heading = ("from scratch", "final loss", "tokens", "adapted", "tokens to that loss", "times faster")
    rows = [heading, *(comparison.row() for comparison in comparisons)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _validations(run_folder: Path, loss: str) -> list[tuple[int, float]]:
    path = run_folder / "metrics.jsonl"
    losses = values_by_iteration(path, f"{loss} validation")
    if not losses:
        raise UserError(f"{path} has no validation of the {loss}; train with --eval-iters 1 or more.")
    tokens = values_by_iteration(path, "consumed_tokens")
    return [(int(tokens[iteration]), value) for iteration, value in sorted(losses.items())]
