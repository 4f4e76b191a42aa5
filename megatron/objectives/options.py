"""What objectives can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from megatron.basics.option import Options, option


@dataclass(frozen=True, kw_only=True)
class ObjectiveOptions(Options):
    """Settings of single objectives; which ones count is said by the objective's `settings`."""

    group: ClassVar[str] = "objective settings"

    noise_density: float = option(
        0.15, "Share of a window's tokens that span corruption replaces.", above=0.0, maximum=0.9
    )
    mean_noise_span_length: float = option(3.0, "Mean length in tokens of a replaced span.", minimum=1.0)
    fim_rate: float = option(
        0.9,
        "Share of documents that fill-in-the-middle rearranges. Up to the default Bavarian et al. 2022 see no harm to "
        "writing from left to right; many code models take 0.5.",
        minimum=0.0,
        maximum=1.0,
    )
    fim_spm_rate: float = option(
        0.5, "Share of rearranged documents whose suffix comes before the prefix.", minimum=0.0, maximum=1.0
    )
