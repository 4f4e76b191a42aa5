"""Weights of transformers models under the names and in the layout of our decoder.

Every rule only moves, joins and transposes, so it maps gradients as well as weights.
"""

import torch

from megatron.conversion.registry import FAMILIES
from megatron.conversion.rules import expand


def fused_qkv(query, key, value, groups):
    """Megatron's order: for each group its query heads, then its key head, then its value head."""
    parts = [part.reshape(groups, -1, *part.shape[1:]) for part in (query, key, value)]
    return torch.cat(parts, dim=1).flatten(0, 1)


def _copy(tensors, names):
    return {ours: tensors[theirs] for ours, theirs in names.items()}


def _pairs(ours, theirs, kinds=("weight", "bias")):
    return {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in kinds}


def from_gpt2(tensors, config):
    """Source: transformers.GPT2LMHeadModel, whose Conv1D keeps weights as [in, out]."""
    names = {
        "embedding.word_embeddings.weight": "transformer.wte.weight",
        "embedding.position_embeddings.weight": "transformer.wpe.weight",
        **_pairs("decoder.final_layernorm", "transformer.ln_f"),
    }
    found = {}
    for i in range(config.n_layer):
        ours, theirs = f"decoder.layers.{i}", f"transformer.h.{i}"
        names |= _pairs(f"{ours}.input_layernorm", f"{theirs}.ln_1")
        names |= _pairs(f"{ours}.pre_mlp_layernorm", f"{theirs}.ln_2")
        for kind in ("weight", "bias"):
            thirds = (
                tensors[f"{theirs}.attn.c_attn.{kind}"].t().chunk(3)
                if kind == "weight"
                else tensors[f"{theirs}.attn.c_attn.{kind}"].chunk(3)
            )
            found[f"{ours}.self_attention.linear_qkv.{kind}"] = fused_qkv(*thirds, config.n_head)
        for part, conv in (
            ("self_attention.linear_proj", "attn.c_proj"),
            ("mlp.linear_fc1", "mlp.c_fc"),
            ("mlp.linear_fc2", "mlp.c_proj"),
        ):
            found[f"{ours}.{part}.weight"] = tensors[f"{theirs}.{conv}.weight"].t()
            found[f"{ours}.{part}.bias"] = tensors[f"{theirs}.{conv}.bias"]
    return found | _copy(tensors, names)


def from_llama(tensors, config):
    """Source: transformers' Llama, Qwen2 and Qwen3, which share their names."""
    names = {
        "embedding.word_embeddings.weight": "model.embed_tokens.weight",
        "decoder.final_layernorm.weight": "model.norm.weight",
        "output_layer.weight": "lm_head.weight",
    }
    found = {}
    for i in range(config.num_hidden_layers):
        ours, theirs = f"decoder.layers.{i}", f"model.layers.{i}"
        names |= _pairs(f"{ours}.input_layernorm", f"{theirs}.input_layernorm", ("weight",))
        names |= _pairs(f"{ours}.pre_mlp_layernorm", f"{theirs}.post_attention_layernorm", ("weight",))
        names |= _pairs(f"{ours}.self_attention.linear_proj", f"{theirs}.self_attn.o_proj", ("weight",))
        names |= _pairs(f"{ours}.mlp.linear_fc2", f"{theirs}.mlp.down_proj", ("weight",))
        for part in ("q", "k"):
            if f"{theirs}.self_attn.{part}_norm.weight" in tensors:
                names[f"{ours}.self_attention.{part}_layernorm.weight"] = f"{theirs}.self_attn.{part}_norm.weight"
        for kind in ("weight", "bias"):
            qkv = [tensors.get(f"{theirs}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            if qkv[0] is not None:
                found[f"{ours}.self_attention.linear_qkv.{kind}"] = fused_qkv(*qkv, config.num_key_value_heads)
        gate_and_up = [tensors[f"{theirs}.mlp.{part}_proj.weight"] for part in ("gate", "up")]
        found[f"{ours}.mlp.linear_fc1.weight"] = torch.cat(gate_and_up)
    return found | _copy(tensors, names)


def from_gpt_neox(tensors, config):
    """Source: transformers.GPTNeoXForCausalLM, whose fused projection is Megatron's already."""
    names = {
        "embedding.word_embeddings.weight": "gpt_neox.embed_in.weight",
        "output_layer.weight": "lm_head.weight" if "lm_head.weight" in tensors else "embed_out.weight",
        **_pairs("decoder.final_layernorm", "gpt_neox.final_layer_norm"),
    }
    for i in range(config.num_hidden_layers):
        ours, theirs = f"decoder.layers.{i}", f"gpt_neox.layers.{i}"
        for part, other in (
            ("input_layernorm", "input_layernorm"),
            ("pre_mlp_layernorm", "post_attention_layernorm"),
            ("self_attention.linear_qkv", "attention.query_key_value"),
            ("self_attention.linear_proj", "attention.dense"),
            ("mlp.linear_fc1", "mlp.dense_h_to_4h"),
            ("mlp.linear_fc2", "mlp.dense_4h_to_h"),
        ):
            names |= _pairs(f"{ours}.{part}", f"{theirs}.{other}")
    return _copy(tensors, names)


def from_mpt(tensors, config):
    """Source: transformers.MptForCausalLM, which has no biases at all; ours in the norms are zero."""
    names = {"embedding.word_embeddings.weight": "transformer.wte.weight"}
    names |= _pairs("decoder.final_layernorm", "transformer.norm_f", ("weight",))
    found = {}
    for i in range(config.n_layers):
        ours, theirs = f"decoder.layers.{i}", f"transformer.blocks.{i}"
        for part, other in (
            ("input_layernorm", "norm_1"),
            ("pre_mlp_layernorm", "norm_2"),
            ("self_attention.linear_proj", "attn.out_proj"),
            ("mlp.linear_fc1", "ffn.up_proj"),
            ("mlp.linear_fc2", "ffn.down_proj"),
        ):
            names |= _pairs(f"{ours}.{part}", f"{theirs}.{other}", ("weight",))
        thirds = tensors[f"{theirs}.attn.Wqkv.weight"].chunk(3)
        found[f"{ours}.self_attention.linear_qkv.weight"] = fused_qkv(*thirds, config.n_heads)
    return found | _copy(tensors, names)


def from_t5(tensors, config):
    """Weights or gradients of theirs under our names, rows of no word with zeros."""
    family = FAMILIES["t5"]
    described = family.describe(config.to_dict(), tensors)
    return {pair.ours: pair.to_ours(tensors) for pair in expand(family.rules(described), described)}
