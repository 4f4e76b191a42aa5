"""Every decoder that our options can make, causal or prefix, with a modelling file of our own inside the folder.

Settings keep the names of our flags where transformers has no name of its own for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from megatron.conversion import modeling_files
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.family import Family
from megatron.conversion.rules import Rule
from megatron.conversion.transforms import Grouped, Stacked, Transposed, Words
from megatron.modeling.options import ACTIVATIONS, POSITION_EMBEDDINGS

MODULE = "modeling_triarch"
ARCHITECTURES = ("causal_decoder", "prefix_decoder")
SIZES = {
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "ffn_hidden_size": "intermediate_size",
    "num_attention_heads": "num_attention_heads",
}
SAME_NAMES = (
    "position_embedding_type",
    "rotary_base",
    "rotary_percent",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "normalization",
    "norm_epsilon",
    "apply_layernorm_1p",
    "qk_layernorm",
    "softmax_scale",
    "scale_embeddings",
    "scale_logits",
    "activation",
    "disable_bias_linear",
    "add_qkv_bias",
    "hidden_dropout",
    "attention_dropout",
)


def rules(described: DescribedModel) -> tuple[Rule, ...]:
    """Every tensor, under Llama's names as far as they go."""
    model = described.model
    words = Words(described.vocabulary_size, described.shape.padded_vocabulary_size)
    qkv = Grouped(model.query_groups, (model.num_attention_heads // model.query_groups, 1, 1), model.head_size)
    ours, theirs = "decoder.layers.{i}", "model.layers.{i}"
    attention, own_attention = f"{theirs}.self_attn", f"{ours}.self_attention"
    names = {
        "decoder.final_layernorm": "model.norm",
        f"{ours}.input_layernorm": f"{theirs}.input_layernorm",
        f"{ours}.pre_mlp_layernorm": f"{theirs}.post_attention_layernorm",
        f"{own_attention}.q_layernorm": f"{attention}.q_norm",
        f"{own_attention}.k_layernorm": f"{attention}.k_norm",
        f"{own_attention}.linear_proj": f"{attention}.o_proj",
        f"{ours}.mlp.linear_fc2": f"{theirs}.mlp.down_proj",
    }
    halves = ("gate_proj", "up_proj") if model.is_gated else ("up_proj",)
    kinds = ("weight", "bias")
    return (
        Rule("embedding.word_embeddings.weight", ("model.embed_tokens.weight",), words),
        Rule("embedding.position_embeddings.weight", ("model.embed_positions.weight",)),
        Rule("output_layer.weight", ("lm_head.weight",), words),
        Rule(
            f"{own_attention}.core_attention.relative_bias.weight",
            (f"{attention}.relative_bias.weight",),
            Transposed(),
        ),
        *(Rule(f"{name}.{kind}", (f"{other}.{kind}",)) for name, other in names.items() for kind in kinds),
        *(
            Rule(f"{own_attention}.linear_qkv.{kind}", tuple(f"{attention}.{part}_proj.{kind}" for part in "qkv"), qkv)
            for kind in kinds
        ),
        *(
            Rule(
                f"{ours}.mlp.linear_fc1.{kind}",
                tuple(f"{theirs}.mlp.{half}.{kind}" for half in halves),
                Stacked(len(halves)),
            )
            for kind in kinds
        ),
    )


def read(config: Mapping[str, Any], tensors: Collection[str]) -> dict[str, Any]:
    """Heads and the head's table."""
    return {
        "num_query_groups": config["num_key_value_heads"],
        "kv_channels": config["head_dim"],
        "untie_embeddings_and_output_weights": not config["tie_word_embeddings"],
    }


def write(described: DescribedModel) -> dict[str, Any]:
    """The inverse of `read`, and where transformers finds the classes."""
    model = described.model
    return {
        "num_key_value_heads": model.query_groups,
        "head_dim": model.head_size,
        "tie_word_embeddings": not model.untie_embeddings_and_output_weights,
        "begins_with_start_token": described.begins_with_start_token,
        "bidirectional_prompts": described.reads_prompts_both_ways,
        "auto_map": {
            "AutoConfig": f"{MODULE}.TriarchConfig",
            "AutoModelForCausalLM": f"{MODULE}.TriarchForCausalLM",
        },
    }


TRIARCH_DECODER = Family(
    name="triarch_decoder",
    model_type="triarch_decoder",
    class_name="TriarchForCausalLM",
    architectures=ARCHITECTURES,
    architecture_field="decoder_type",
    fixed={},
    sizes={**SIZES, **{name: name for name in SAME_NAMES}},
    expected={},
    legal={
        "decoder_type": ARCHITECTURES,
        "position_embedding_type": POSITION_EMBEDDINGS,
        "normalization": ("LayerNorm", "RMSNorm"),
        "activation": ACTIVATIONS,
    },
    rules=rules,
    read=read,
    write=write,
    copies={"lm_head.weight": "model.embed_tokens.weight"},
    files={f"{MODULE}.py": (Path(modeling_files.__path__[0]) / f"{MODULE}.py").read_text(encoding="utf-8")},
)
