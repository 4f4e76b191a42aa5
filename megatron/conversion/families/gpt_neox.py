"""GPT-NeoX (Black et al. 2022) without parallel residuals.

Source: transformers' GPTNeoXForCausalLM, whose joined projection is woven by heads as megatron-core's is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from megatron.conversion.described_model import DescribedModel
from megatron.conversion.families.rotary import plain_rotary_base
from megatron.conversion.family import Family
from megatron.conversion.rules import Rule
from megatron.conversion.transforms import Words

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
READ_ACTIVATIONS = {
    **{theirs: ours for ours, theirs in ACTIVATIONS.items()},
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}


def rules(described: DescribedModel) -> tuple[Rule, ...]:
    """Every tensor."""
    words = Words(described.vocabulary_size, described.shape.padded_vocabulary_size)
    ours, theirs = "decoder.layers.{i}", "gpt_neox.layers.{i}"
    names = {
        "decoder.final_layernorm": "gpt_neox.final_layer_norm",
        f"{ours}.input_layernorm": f"{theirs}.input_layernorm",
        f"{ours}.pre_mlp_layernorm": f"{theirs}.post_attention_layernorm",
        f"{ours}.self_attention.linear_qkv": f"{theirs}.attention.query_key_value",
        f"{ours}.self_attention.linear_proj": f"{theirs}.attention.dense",
        f"{ours}.mlp.linear_fc1": f"{theirs}.mlp.dense_h_to_4h",
        f"{ours}.mlp.linear_fc2": f"{theirs}.mlp.dense_4h_to_h",
    }
    return (
        Rule("embedding.word_embeddings.weight", ("gpt_neox.embed_in.weight",), words),
        Rule("output_layer.weight", ("lm_head.weight",), words),
        *(Rule(f"{name}.{kind}", (f"{other}.{kind}",)) for name, other in names.items() for kind in ("weight", "bias")),
    )


def read(config: Mapping[str, Any], tensors: Collection[str]) -> dict[str, Any]:
    """Activation, rotary positions, the head's table and dropout."""
    rope = config.get("rope_parameters") or {}
    return {
        "activation": READ_ACTIVATIONS[config["hidden_act"]],
        "rotary_base": plain_rotary_base(config),
        "rotary_percent": rope.get("partial_rotary_factor", config.get("rotary_pct", 0.25)),
        "untie_embeddings_and_output_weights": not config.get("tie_word_embeddings", False),
        "hidden_dropout": config.get("hidden_dropout", 0.0),
        "attention_dropout": config.get("attention_dropout", 0.0),
    }


def write(described: DescribedModel) -> dict[str, Any]:
    """The inverse of `read`."""
    model = described.model
    return {
        "hidden_act": ACTIVATIONS[model.activation],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": float(model.rotary_base),
            "partial_rotary_factor": model.rotary_percent,
        },
        "tie_word_embeddings": not model.untie_embeddings_and_output_weights,
        "hidden_dropout": model.hidden_dropout,
        "attention_dropout": model.attention_dropout,
    }


GPT_NEOX = Family(
    name="gpt_neox",
    model_type="gpt_neox",
    class_name="GPTNeoXForCausalLM",
    architectures=("causal_decoder",),
    fixed={
        "normalization": "LayerNorm",
        "position_embedding_type": "rope",
        "disable_bias_linear": False,
        "num_query_groups": None,
        "kv_channels": None,
        "qk_layernorm": False,
        "softmax_scale": None,
        "scale_logits": False,
        "apply_layernorm_1p": False,
        "scale_embeddings": False,
    },
    choices={"activation": tuple(ACTIVATIONS)},
    sizes={
        "num_layers": "num_hidden_layers",
        "hidden_size": "hidden_size",
        "ffn_hidden_size": "intermediate_size",
        "num_attention_heads": "num_attention_heads",
        "norm_epsilon": "layer_norm_eps",
    },
    expected={"use_parallel_residual": False, "attention_bias": True},
    legal={"hidden_act": tuple(READ_ACTIVATIONS), "is_causal": (None, True)},
    rules=rules,
    read=read,
    write=write,
    copies={"lm_head.weight": "gpt_neox.embed_in.weight"},
    aliases={"embed_out.weight": "lm_head.weight"},
    ignored=(r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",),
)
