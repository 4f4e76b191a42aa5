"""The matrices that hold several projections, and how their rows take turns."""

from __future__ import annotations

from megatron.modeling.options import ModelOptions


def stacked_widths(options: ModelOptions, name: str) -> tuple[int, ...] | None:
    """Rows of each projection in turn, repeated over the groups; None where a parameter is one projection.

    name: of a weight or bias in the whole model. Each group of linear_qkv has its query heads, one key and one value
    head; each of linear_kv a key and a value head; linear_fc1 of a gated layer has all gates, then all that they gate.
    """
    module = name.rpartition(".")[0]
    head = options.head_size
    if module.endswith("linear_qkv"):
        return options.num_attention_heads // options.query_groups * head, head, head
    if module.endswith("linear_kv"):
        return head, head
    if module.endswith("linear_fc1") and options.is_gated:
        return options.ffn_size, options.ffn_size
    return None
