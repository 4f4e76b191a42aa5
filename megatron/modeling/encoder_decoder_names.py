"""Names of an encoder-decoder's parameters: by stack, wherever the layers of both stand in one block."""

from __future__ import annotations

import re

_LAYER = re.compile(r"^stack\.layers\.(\d+)\.(.*)$")


def parameter_name(name: str, encoder_layers: int) -> str:
    """`stack.layers.7.mlp...` of a model with 6 encoder layers is `decoder.layers.1.mlp...`, and so on."""
    layer = _LAYER.match(name)
    if layer:
        number, rest = int(layer[1]), layer[2]
        if rest.startswith("final_norm."):
            return f"encoder.final_layernorm.{rest.removeprefix('final_norm.')}"
        if number < encoder_layers:
            return f"encoder.layers.{number}.{rest}"
        return f"decoder.layers.{number - encoder_layers}.{rest}"
    if name.startswith("final_layernorm."):
        return f"decoder.{name}"
    table = re.match(r"^(encoder|decoder)_bias\.(.*)$", name)
    return f"{table[1]}.relative_bias.{table[2]}" if table else name
