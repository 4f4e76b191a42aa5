"""Llama, and what has its names: Qwen2 with biases before attention, Qwen3 with norms of queries and keys.

Source: transformers' LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from megatron.basics.errors import UserError
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.families.rotary import plain_rotary_base
from megatron.conversion.family import Family
from megatron.conversion.rules import Rule
from megatron.conversion.transforms import Grouped, Stacked, Words

FULL = "full_attention"
FORM: dict[str, Any] = {
    "normalization": "RMSNorm",
    "activation": "swiglu",
    "position_embedding_type": "rope",
    "rotary_percent": 1.0,
    "disable_bias_linear": True,
    "softmax_scale": None,
    "scale_logits": False,
}
PLAIN_SCALES = {"apply_layernorm_1p": False, "scale_embeddings": False}
SIZES = {
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "ffn_hidden_size": "intermediate_size",
    "num_attention_heads": "num_attention_heads",
    "norm_epsilon": "rms_norm_eps",
}
LEGAL = {"is_causal": (None, True)}  # transformers takes the mask from this field where a config has it
COPIES = {"lm_head.weight": "model.embed_tokens.weight"}
IGNORED = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)


def rules(described: DescribedModel) -> tuple[Rule, ...]:
    """Every tensor of a model of these families."""
    model = described.model
    words = Words(described.vocabulary_size, described.shape.padded_vocabulary_size)
    qkv = Grouped(model.query_groups, (model.num_attention_heads // model.query_groups, 1, 1), model.head_size)
    ours, theirs = "decoder.layers.{i}", "model.layers.{i}"
    projections = [f"{theirs}.self_attn.{part}_proj" for part in "qkv"]
    return (
        Rule("embedding.word_embeddings.weight", ("model.embed_tokens.weight",), words),
        Rule("output_layer.weight", ("lm_head.weight",), words),
        Rule("decoder.final_layernorm.weight", ("model.norm.weight",)),
        Rule(f"{ours}.input_layernorm.weight", (f"{theirs}.input_layernorm.weight",)),
        Rule(f"{ours}.pre_mlp_layernorm.weight", (f"{theirs}.post_attention_layernorm.weight",)),
        *(
            Rule(f"{ours}.self_attention.linear_qkv.{kind}", tuple(f"{name}.{kind}" for name in projections), qkv)
            for kind in ("weight", "bias")
        ),
        *(
            Rule(f"{ours}.self_attention.{part}_layernorm.weight", (f"{theirs}.self_attn.{part}_norm.weight",))
            for part in "qk"
        ),
        Rule(f"{ours}.self_attention.linear_proj.weight", (f"{theirs}.self_attn.o_proj.weight",)),
        Rule(
            f"{ours}.mlp.linear_fc1.weight",
            (f"{theirs}.mlp.gate_proj.weight", f"{theirs}.mlp.up_proj.weight"),
            Stacked(2),
        ),
        Rule(f"{ours}.mlp.linear_fc2.weight", (f"{theirs}.mlp.down_proj.weight",)),
    )


def read(config: Mapping[str, Any], tensors: Collection[str]) -> dict[str, Any]:
    """Heads, rotary base, the head's table and dropout. Raises UserError for layers that do not see all before them."""
    kinds = {*(config.get("layer_types") or ())} - {FULL}
    if kinds:
        raise UserError(
            f"config.json: layer_types {', '.join(map(str, kinds))} have no counterpart; only {FULL} can be converted."
        )
    heads, groups, width = (config.get(name) for name in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    return {
        "num_query_groups": heads if groups is None else groups,
        "kv_channels": config["hidden_size"] // heads if width is None else width,
        "rotary_base": plain_rotary_base(config),
        "untie_embeddings_and_output_weights": not config.get("tie_word_embeddings", False),
        "attention_dropout": config.get("attention_dropout") or 0.0,
    }


def write(described: DescribedModel) -> dict[str, Any]:
    """The inverse of `read`."""
    model = described.model
    return {
        "num_key_value_heads": model.query_groups,
        "head_dim": model.head_size,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(model.rotary_base)},
        "tie_word_embeddings": not model.untie_embeddings_and_output_weights,
        "attention_dropout": model.attention_dropout,
    }


def _family(name: str, class_name: str, form: Mapping[str, Any], expected: Mapping[str, Any]) -> Family:
    return Family(
        name=name,
        model_type=name,
        class_name=class_name,
        architectures=("causal_decoder",),
        fixed={**FORM, **PLAIN_SCALES, **form},
        sizes=SIZES,
        expected={"hidden_act": "silu", **expected},
        legal=LEGAL,
        rules=rules,
        read=read,
        write=write,
        copies=COPIES,
        ignored=IGNORED,
    )


LLAMA = _family(
    "llama",
    "LlamaForCausalLM",
    {"add_qkv_bias": False, "qk_layernorm": False},
    {"attention_bias": False, "mlp_bias": False},
)
QWEN2 = _family(
    "qwen2", "Qwen2ForCausalLM", {"add_qkv_bias": True, "qk_layernorm": False}, {"use_sliding_window": False}
)
QWEN3 = _family(
    "qwen3",
    "Qwen3ForCausalLM",
    {"add_qkv_bias": False, "qk_layernorm": True},
    {"attention_bias": False, "use_sliding_window": False},
)
