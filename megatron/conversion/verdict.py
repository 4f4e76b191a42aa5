"""Whether a folder holds the model of a checkpoint: what was compared, in figures, for people and for programs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from megatron.basics.atomic_files import write_json
from megatron.conversion.parity import Parity
from megatron.conversion.tokenizer_parity import TokenizerParity
from megatron.conversion.weight_parity import Precision, WeightParity

FILE = "verdict.json"
TERMINAL_WIDTH = 100
READINGS = {
    "causal_decoder": "read from left to right",
    "prefix_decoder": "their first half read both ways",
    "encoder_decoder": "each behind a piece of text of the same length in the encoder",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """checkpoint, folder, text: names, without the paths of this machine. architecture: as the folder reads.

    tolerance: the largest difference of logits that passes. settings: those that differ, each with both values.
    """

    checkpoint: str
    folder: str
    architecture: str
    text: str
    rows: int
    row_length: int
    precision: Precision
    tolerance: float
    parity: Parity
    weights: WeightParity
    tokenizer: TokenizerParity
    settings: tuple[str, ...] = ()

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """Why the folder does not hold the model; empty where it does."""
        return tuple(self._reasons())

    @property
    def has_passed(self) -> bool:
        """Whether everything is the same."""
        return not self.reasons

    def _reasons(self) -> Iterator[str]:
        parity = self.parity
        if not math.isfinite(parity.mean_difference):
            yield "logits are not finite"
        elif parity.max_difference > self.tolerance:
            yield f"logits differ by {parity.max_difference:.2g}, and {self.tolerance:.2g} is the most that passes"
        if self.weights.different:
            yield self.weights.sentence()
        if self.tokenizer.is_same is False:
            yield f"the tokenizers differ: {self.tokenizer.remark}"
        yield from self.settings

    def figures(self) -> list[tuple[str, str]]:
        """(what, figure) of everything that was compared."""
        parity = self.parity
        checkpoint, folder = parity.log_likelihood
        return [
            ("largest difference of logits", f"{parity.max_difference:.3g} (at most {self.tolerance:.3g} passes)"),
            ("mean difference of logits", f"{parity.mean_difference:.3g}"),
            ("same likeliest token", f"{parity.same_top:.2%} of {parity.positions:,} positions"),
            ("log-likelihood a token", f"{checkpoint:.5f} by the checkpoint, {folder:.5f} by the folder"),
            ("weights", self.weights.sentence()),
            ("tokenizer", self.tokenizer.remark),
            ("settings", "; ".join(self.settings) or "the same longest row, special tokens and reading of prompts"),
        ]

    def heading(self) -> str:
        """What the figures are about."""
        is_one = self.precision.checkpoint == self.precision.folder
        rounding = "" if is_one else " and ".join(self.precision.coarse)
        how = f", all weights rounded to {rounding}" if rounding else ""
        return (
            f"{self.folder} beside {self.checkpoint}, both computed in float32{how}, on {self.rows} rows of "
            f"{self.row_length} tokens of {self.text}, {READINGS[self.architecture]}:"
        )

    @property
    def ending(self) -> str:
        """The last line."""
        return "verdict: passed" if self.has_passed else f"verdict: FAILED, {'; '.join(self.reasons)}"

    def lines(self) -> str:
        """For a terminal."""
        rows = self.figures()
        width = max(len(what) for what, _ in rows)
        heading = textwrap.fill(self.heading(), TERMINAL_WIDTH, break_on_hyphens=False)
        return "\n".join([heading, *(f"  {what:<{width}}  {figure}" for what, figure in rows), self.ending])

    def markdown(self) -> str:
        """For a model card."""
        rows = [f"| {what} | {figure} |" for what, figure in self.figures()]
        return "\n".join([self.heading(), "", "| | |", "|---|---|", *rows, "", f"**{self.ending}**"])

    def write(self, folder: Path) -> None:
        """Write `verdict.json` into a folder."""
        facts = asdict(self)
        checkpoint, of_folder = self.parity.log_likelihood
        facts["parity"]["log_likelihood"] = {"checkpoint": checkpoint, "folder": of_folder}
        verdict = {"verdict": "passed" if self.has_passed else "FAILED", "reasons": list(self.reasons)}
        write_json(folder / FILE, _finite({**verdict, **facts, "versions": _versions()}))


def _finite(content: Any) -> Any:
    """The same without numbers that JSON does not know."""
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "megatron-core")}
