"""Rotary positions as configs of transformers have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron.basics.errors import UserError


def plain_rotary_base(config: Mapping[str, Any]) -> int:
    """The base of unscaled rotary positions. Raises UserError for any other kind, and for a broken base."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if any(isinstance(value, Mapping) for value in rope.values()):
        kind = "one for each kind of layer"
    if kind != "default":
        raise UserError(
            f"config.json: rope_parameters of type {kind} have no counterpart; only plain rotary positions can be "
            "converted."
        )
    base = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    if not isinstance(base, int | float) or base % 1 != 0:  # as infinity's rest is not, and that of no number
        raise UserError(f"config.json: a rope_theta of {base} is not a whole number; it cannot be converted.")
    return int(base)
