"""What a checkpoint becomes, and what it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from megatron.basics.option import Options, option

DECODERS = ("causal_decoder", "prefix_decoder")
ENCODER_DECODERS = ("encoder_decoder",)


@dataclass(frozen=True, kw_only=True)
class AdaptationOptions(Options):
    """The target, and how its weights, optimizer state and schedule begin."""

    group: ClassVar[str] = "adaptation"

    to: str | None = option(
        None, "Architecture to go on as.", choices=(*DECODERS, *ENCODER_DECODERS), metavar="ARCHITECTURE"
    )
    from_stack: str | None = option(
        None,
        "From an encoder-decoder to a decoder: the stack whose layers are taken. Default: decoder, without its cross "
        "attention.",
        choices=("decoder", "encoder"),
    )
    cross_attention: str | None = option(
        None,
        "From a decoder to an encoder-decoder: cross attention begins as a copy of each layer's self attention, or "
        "drawn. Default: self.",
        choices=("self", "drawn"),
    )
    optimizer_state: str = option(
        "keep",
        "Moments and step of the optimizer: those of --load, rearranged like its weights, or none.",
        choices=("keep", "fresh"),
    )
    schedule: str = option(
        "continue",
        "continue: iteration, position in the data and optimizer settings are those of --load; --train-iters counts "
        "its steps too, and its decay ends where it would have there, unless --lr-decay-iters says otherwise. rewarm: "
        "a learning rate of its own from step 1; the other optimizer settings stay.",
        choices=("continue", "rewarm"),
    )

    @property
    def stack(self) -> str:
        """The stack of an encoder-decoder whose layers a decoder takes."""
        return self.from_stack or "decoder"

    @property
    def draws_cross_attention(self) -> bool:
        """Whether cross attention keeps its initial weights."""
        return self.cross_attention == "drawn"

    def rules(self) -> Iterator[str]:
        """The target must be named."""
        if self.to is None:
            yield f"--to is missing; name the architecture to go on as: {', '.join((*DECODERS, *ENCODER_DECODERS))}."
