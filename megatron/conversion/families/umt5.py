"""UMT5 (Chung et al. 2023): T5 1.1 with a table of distances in every layer.

Source: transformers' UMT5ForConditionalGeneration. Since version 5 it scales the head's input, whatever a config says;
what it computes is what counts here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from megatron.conversion.described_model import DescribedModel
from megatron.conversion.families import t5
from megatron.conversion.rules import Rule
from megatron.conversion.transforms import Transposed


def rules(described: DescribedModel) -> tuple[Rule, ...]:
    """Every tensor."""
    tables = (
        Rule(
            f"{stack}.layers.{{i}}.self_attention.core_attention.relative_bias.weight",
            (f"{stack}.block.{{i}}.{t5.TABLE}",),
            Transposed(),
        )
        for stack in ("encoder", "decoder")
    )
    return (*tables, *t5.rules_beside_tables(described))


def read(config: Mapping[str, Any], tensors: Collection[str]) -> dict[str, Any]:
    """Layers, heads, activation and head."""
    return {**t5.read_sizes(config), "untie_embeddings_and_output_weights": t5.HEAD in tensors}


UMT5 = t5.T5Family(
    name="umt5",
    model_type="umt5",
    class_name="UMT5ForConditionalGeneration",
    architectures=("encoder_decoder",),
    fixed={**t5.FORM, "relative_bias_per_layer": True, "scale_logits": True},
    choices={"activation": tuple(t5.FEED_FORWARDS)},
    sizes=t5.SIZES,
    expected={"is_encoder_decoder": True},
    legal={"feed_forward_proj": tuple(t5.READ_FEED_FORWARDS)},
    positions=t5.POSITIONS,
    rules=rules,
    read=read,
    write=t5.write_sizes,
    copies=dict.fromkeys(t5.COPIES, "shared.weight"),
)
