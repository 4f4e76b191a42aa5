"""GPT-2 (Radford et al. 2019). Source: transformers' GPT2LMHeadModel, whose Conv1D keeps weights as [in, out]."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from megatron.conversion.described_model import DescribedModel
from megatron.conversion.family import Family
from megatron.conversion.rules import Rule
from megatron.conversion.transforms import Grouped, Transposed, Words

ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu"}
READ_ACTIVATIONS = {**{theirs: ours for ours, theirs in ACTIVATIONS.items()}, "gelu_pytorch_tanh": "gelu_tanh"}


def rules(described: DescribedModel) -> tuple[Rule, ...]:
    """Every tensor."""
    model = described.model
    words = Words(described.vocabulary_size, described.shape.padded_vocabulary_size)
    qkv = Grouped(model.num_attention_heads, (1, 1, 1), model.head_size, transposed=True, joined=True)
    ours, theirs = "decoder.layers.{i}", "transformer.h.{i}"
    norms = {
        "decoder.final_layernorm": "transformer.ln_f",
        f"{ours}.input_layernorm": f"{theirs}.ln_1",
        f"{ours}.pre_mlp_layernorm": f"{theirs}.ln_2",
    }
    layers = {
        f"{ours}.self_attention.linear_proj": f"{theirs}.attn.c_proj",
        f"{ours}.mlp.linear_fc1": f"{theirs}.mlp.c_fc",
        f"{ours}.mlp.linear_fc2": f"{theirs}.mlp.c_proj",
    }
    return (
        Rule("embedding.word_embeddings.weight", ("transformer.wte.weight",), words),
        Rule("embedding.position_embeddings.weight", ("transformer.wpe.weight",)),
        Rule("output_layer.weight", ("lm_head.weight",), words),
        *(
            Rule(f"{ours}.self_attention.linear_qkv.{kind}", (f"{theirs}.attn.c_attn.{kind}",), qkv)
            for kind in ("weight", "bias")
        ),
        *(Rule(f"{name}.{kind}", (f"{other}.{kind}",)) for name, other in norms.items() for kind in ("weight", "bias")),
        *(Rule(f"{name}.weight", (f"{other}.weight",), Transposed()) for name, other in layers.items()),
        *(Rule(f"{name}.bias", (f"{other}.bias",)) for name, other in layers.items()),
    )


def read(config: Mapping[str, Any], tensors: Collection[str]) -> dict[str, Any]:
    """Width of the feed-forward layer, activation, the head's table and dropout (embeddings have that of residuals)."""
    return {
        "ffn_hidden_size": config.get("n_inner") or 4 * config["n_embd"],
        "activation": READ_ACTIVATIONS[config["activation_function"]],
        "untie_embeddings_and_output_weights": not config.get("tie_word_embeddings", True),
        "hidden_dropout": config.get("resid_pdrop", 0.0),
        "attention_dropout": config.get("attn_pdrop", 0.0),
    }


def write(described: DescribedModel) -> dict[str, Any]:
    """The inverse of `read`."""
    model = described.model
    return {
        "n_inner": None if model.ffn_size == 4 * model.hidden_size else model.ffn_size,
        "activation_function": ACTIVATIONS[model.activation],
        "tie_word_embeddings": not model.untie_embeddings_and_output_weights,
        "resid_pdrop": model.hidden_dropout,
        "embd_pdrop": model.hidden_dropout,
        "attn_pdrop": model.attention_dropout,
    }


GPT2 = Family(
    name="gpt2",
    model_type="gpt2",
    class_name="GPT2LMHeadModel",
    architectures=("causal_decoder",),
    fixed={
        "normalization": "LayerNorm",
        "position_embedding_type": "learned_absolute",
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
        "num_layers": "n_layer",
        "hidden_size": "n_embd",
        "num_attention_heads": "n_head",
        "norm_epsilon": "layer_norm_epsilon",
    },
    expected={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
    },
    legal={"activation_function": tuple(READ_ACTIVATIONS), "is_causal": (None, True)},
    positions="n_positions",
    rules=rules,
    read=read,
    write=write,
    copies={"lm_head.weight": "transformer.wte.weight"},
    ignored=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",),
)
