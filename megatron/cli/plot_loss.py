"""The command that draws the losses of runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from megatron.basics.atomic_files import atomic_writer
from megatron.basics.option import Options, option
from megatron.cli.flags import parse
from megatron.cli.loss_curves import Curve, LossCurves, read_loss_curves

DESCRIPTION = "Draw training and validation loss of one or more runs, with the points at which they were resumed."
SMOOTHING_SHARE = 0.02  # the smooth line is a mean over this share of the steps


@dataclass(frozen=True, kw_only=True)
class PlotOptions(Options):
    """What to draw, and where to."""

    group: ClassVar[str] = "plot"

    load: list[str] = option([], "Run folders.", metavar="RUN")
    output: str | None = option(None, "Picture to write; its ending (.png, .svg, .pdf) is the format.", metavar="FILE")
    loss: str = option("lm loss", "Loss to draw, as metrics.jsonl names it.", metavar="NAME")
    title: str = option("", "Text above the picture. Default: none.")

    def rules(self) -> Iterator[str]:
        """There is something to read and somewhere to write."""
        if not self.load:
            yield "--load is missing; give one or more run folders."
        if not self.output:
            yield "--output is missing; give the picture to write, e.g. loss.png."
        elif Path(self.output).suffix not in (".png", ".svg", ".pdf"):
            yield f"--output {self.output} must end in .png, .svg or .pdf."


SECTIONS: dict[str, type[Options]] = {"plot": PlotOptions}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError."""
    options: PlotOptions = parse(sys.argv[1:] if argv is None else argv, SECTIONS, description=DESCRIPTION)["plot"]
    runs = [read_loss_curves(Path(folder), options.loss) for folder in options.load]
    figure = draw(runs, options)
    with atomic_writer(str(options.output)) as file:
        figure.savefig(file, format=Path(str(options.output)).suffix[1:], dpi=144)
    print(f"{options.output}: {', '.join(summary(run) for run in runs)}")


def draw(runs: Sequence[LossCurves], options: PlotOptions) -> Any:
    """A matplotlib figure."""
    from matplotlib.figure import Figure  # half a second to import; not pyplot, which looks for a display

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, run in enumerate(runs):
        label = f"{run.name}, " if len(runs) > 1 else ""
        colour = f"C{2 * number}"
        axes.plot(*zip(*run.training, strict=True), color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(*zip(*smooth(run.training), strict=True), color=colour, label=f"{label}training")
        if run.validation:
            axes.plot(*zip(*run.validation, strict=True), f"C{2 * number + 1}o-", ms=4, label=f"{label}validation")
        for iteration, layout in run.resumes:
            axes.axvline(iteration, color="0.4", linestyle="--", linewidth=1)
            place = axes.get_xaxis_transform()  # x in iterations, y in shares of the height
            axes.text(iteration, 0.98, f" resumed on {layout}", transform=place, va="top", color="0.3", fontsize=9)
    axes.set(xlabel="iteration", ylabel=f"{options.loss} (nats per token)", title=options.title)
    axes.grid(alpha=0.25)
    axes.legend(loc="center right", frameon=False)
    return figure


def smooth(curve: Curve) -> Curve:
    """The mean of each point's neighbours, up to half a window on either side; as many points as before."""
    half = max(1, round(len(curve) * SMOOTHING_SHARE / 2))
    windows = [curve[max(0, place - half) : place + half + 1] for place in range(len(curve))]
    return [
        (iteration, sum(loss for _, loss in window) / len(window))
        for (iteration, _), window in zip(curve, windows, strict=True)
    ]


def summary(run: LossCurves) -> str:
    """One clause: how far the run is, and its last losses."""
    text = f"{run.name} at iteration {run.training[-1][0]}: training {smooth(run.training)[-1][1]:.3f}"
    return f"{text}, validation {run.validation[-1][1]:.3f}" if run.validation else text
