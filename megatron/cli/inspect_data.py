"""The command that shows what a model is fed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from megatron.architectures.registry import ARCHITECTURES
from megatron.basics.errors import UserError
from megatron.basics.option import Options, option
from megatron.cli import run_config
from megatron.cli.chosen_cell import config_of_cell, illegal_objective, settings_of_record
from megatron.cli.cross_checks import architecture_reads_settings, objective_reads_settings, positions_can_restart
from megatron.cli.file_checks import token_files_exist, tokenizer_exists
from megatron.cli.flags import parse
from megatron.cli.run_config import RunConfig
from megatron.cli.terminal_style import Style

DESCRIPTION = (
    "Show rows of any run configuration as text: tokens, labels, loss, segments, positions and who sees whom. Takes "
    "the flags of the pretrain scripts as well; with --load RUN they default to what that run was given."
)
ROW_RULES = (
    objective_reads_settings,
    architecture_reads_settings,
    positions_can_restart,
    token_files_exist,
    tokenizer_exists,
)
NARROWEST, PIPED_WIDTH = 40, 120


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Options):
    """Which rows to show, and how much of them."""

    group: ClassVar[str] = "what to show"

    architecture: str = option("causal_decoder", "What the rows are arranged for.", choices=tuple(ARCHITECTURES))
    objective: str | None = option(
        None, "What the model learns to predict. Default: that of the architecture's pretrain script.", metavar="NAME"
    )
    samples: list[int] = option([2], "How many samples from the first on, or FIRST LAST.", metavar="N")
    of: str = option("train", "Text that the samples are taken of.", choices=("train", "valid", "test"))
    rows: int = option(2, "Rows to draw; of the other samples only the shares are counted.", minimum=0)
    positions: int = option(
        96, "Positions of a row to list at most; of longer rows both ends of as many segments as fit.", minimum=8
    )

    def rules(self) -> Iterator[str]:
        """An objective for this architecture, and a range of samples."""
        yield from illegal_objective(self.architecture, self.objective)
        text = " ".join(map(str, self.samples))
        if len(self.samples) > 2 or min(self.samples) < 0:
            yield f"--samples {text} is neither a number nor FIRST LAST; use e.g. 2, or 100 103."
        elif not self.sample_range:
            yield f"--samples {text} holds no sample; use e.g. 2, or 100 103."

    @property
    def sample_range(self) -> range:
        """The samples, LAST included."""
        first, *last = self.samples
        return range(first, last[0] + 1) if last else range(first)


SECTIONS: dict[str, type[Options]] = {"inspect": InspectOptions}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError."""
    parsed = parse(
        sys.argv[1:] if argv is None else argv,
        {**SECTIONS, **run_config.SECTIONS},
        description=DESCRIPTION,
        defaults=_settings_of_run,
    )
    options: InspectOptions = parsed.pop("inspect")
    config = config_of_cell(options.architecture, options.objective, parsed, ROW_RULES)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # pieces are any Unicode, terminals are not
    for line in inspect(config, options, Style.of(sys.stdout), _terminal_width()):
        print(line)


def inspect(config: RunConfig, options: InspectOptions, style: Style, width: int) -> Iterator[str]:
    """The lines that are printed: rows, then shares over all samples."""
    from megatron.cli.row_text import RowPrinter, filled_positions  # --help does without numpy
    from megatron.cli.wire_rows import build_rows
    from megatron.tokenization.tokenizer import load_tokenizer

    data = config.data
    tokenizer = load_tokenizer(data.tokenizer_type, data.tokenizer_model, data.add_special_tokens)
    rows = build_rows(config, tokenizer, (options.of,)).get(options.of)
    if rows is None:
        raise UserError(f"--of {options.of}: the data flags leave it no text; change --split or the paths.")
    printer = RowPrinter(tokenizer.piece, style, width, options.positions)
    filled = total = with_loss = targets = 0
    for number, sample in enumerate(options.sample_range):
        row = rows[sample]
        own_filled, own_total = filled_positions(row)
        own_loss = int((row.loss_mask > 0).sum())
        filled, total = filled + own_filled, total + own_total
        with_loss, targets = with_loss + own_loss, targets + len(row.loss_mask)
        if number < options.rows:
            shares = _shares(own_filled, own_total, own_loss, len(row.loss_mask))
            yield style.strong(f"{options.of} sample {sample}, {config.architecture}:{config.objective}: {shares}")
            yield ""
            yield from printer.lines(row)
            yield ""
    first, last = options.sample_range[0], options.sample_range[-1]
    yield f"samples {first} to {last}: {_shares(filled, total, with_loss, targets)}"


def _shares(filled: int, total: int, with_loss: int, targets: int) -> str:
    return (
        f"{filled:,} of {total:,} positions filled ({100 * filled / total:.1f} %), "
        f"{with_loss:,} of {targets:,} labels with loss ({100 * with_loss / targets:.1f} %)"
    )


def _terminal_width() -> int:
    return max(NARROWEST, shutil.get_terminal_size((PIPED_WIDTH, 0)).columns)


def _settings_of_run(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the record of --load says, for the flags that shape rows. Raises UserError."""
    if not given.get("load"):
        return {}
    config, tokenizer, settings = settings_of_record(given, ("model", "objective_options", "data"))
    return {**settings, "seed": config.batch.seed, "tokenizer_model": tokenizer["model"]}
