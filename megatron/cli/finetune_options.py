"""What `finetune_t0.py` can be told besides the settings of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from megatron.adaptation.options import DECODERS, ENCODER_DECODERS, AdaptationOptions
from megatron.basics.option import option


@dataclass(frozen=True, kw_only=True)
class FinetuningOptions(AdaptationOptions):
    """What a checkpoint becomes before it is finetuned, and what it keeps."""

    group: ClassVar[str] = "finetuning"

    to: str | None = option(
        None,
        "Architecture to be finetuned. Default: that of --load.",
        choices=(*DECODERS, *ENCODER_DECODERS),
        metavar="ARCHITECTURE",
    )
    optimizer_state: str = option(
        "fresh", "Moments and step of the optimizer: none, or those of --load.", choices=("keep", "fresh")
    )
    schedule: str = option(
        "rewarm",
        "rewarm: a learning rate of its own from step 1. continue: iteration, learning rate and optimizer go on as in "
        "--load, whose steps --train-iters counts too.",
        choices=("continue", "rewarm"),
    )

    def rules(self) -> Iterator[str]:
        """The target is that of --load where it is not named."""
        return iter(())
