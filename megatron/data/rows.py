"""The row of any sample: from source through objective to arrangement, with nothing kept between samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from megatron.basics.draws import Draws
from megatron.basics.seeds import seed_for
from megatron.data.windows import WindowSource
from megatron.objectives.protocol import Objective
from megatron.records.example import Example
from megatron.records.row import Row


@dataclass(frozen=True, kw_only=True)
class Rows:
    """source: sample -> windows. objective: window -> examples. arrange: examples of one sample -> row.

    What a row holds is a function of (seed, sample number) alone.
    """

    source: WindowSource
    objective: Objective
    arrange: Callable[[Sequence[Example]], Row]
    seed: int

    def __getitem__(self, sample: int) -> Row:
        """The row of one sample. Raises what the source, objective or arrangement raises."""
        return self.arrange(self.examples(sample))

    def examples(self, sample: int) -> list[Example]:
        """What the objective makes of the sample's windows, one after another."""
        draws = Draws(seed_for(self.seed, "objective", sample))
        return [example for window in self.source.windows(sample) for example in self.objective(window, draws)]
