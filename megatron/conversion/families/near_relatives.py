"""Families whose names look like one of ours and whose models are other functions: what none of ours can follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NearRelative:
    """family: the nearest of ours. parts: what all of its models have. fields: of its config, that say what more."""

    family: str
    parts: str
    fields: tuple[str, ...]

    def reason(self, config: Mapping[str, Any]) -> str:
        """Why a folder with this config cannot be converted, without subject and full stop."""
        of_text = config.get("text_config")
        config = {**config, **(of_text if isinstance(of_text, Mapping) else {})}
        said = [f"{name} {config[name]}" for name in self.fields if config.get(name) is not None]
        further = f", and its config says {', '.join(said)}" if said else ""
        return f"has {self.parts}{further}; no model of ours can follow that. The nearest family is {self.family}"


WINDOWS = ("sliding_window", "sliding_window_pattern")
SOFT_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
GEMMA_2 = NearRelative(
    "gemma",
    "norms behind attention and feed-forward, and sliding windows in every second layer",
    ("query_pre_attn_scalar", "sliding_window", *SOFT_CAPS),
)
GEMMA_3 = NearRelative(
    "gemma",
    "norms behind attention and feed-forward, sliding windows in most layers, and rotary bases by the kind of layer",
    ("query_pre_attn_scalar", *WINDOWS, "rope_local_base_freq", *SOFT_CAPS),
)
NEAR_RELATIVES = {"gemma2": GEMMA_2, "gemma3": GEMMA_3, "gemma3_text": GEMMA_3}
