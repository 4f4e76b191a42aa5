"""Small random models of transformers, and the settings under which our decoder is the same function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers_weights import from_gpt2, from_gpt_neox, from_llama, from_mpt

from tests.oracles.one_process_model import VOCABULARY

LENGTH = 150  # more than one block of queries
LLAMA = {
    "num_layers": 2,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "ffn_hidden_size": 80,
    "normalization": "RMSNorm",
    "norm_epsilon": 1e-6,
    "activation": "swiglu",
    "position_embedding_type": "rope",
    "disable_bias_linear": True,
    "untie_embeddings_and_output_weights": True,
}
THEIR_LLAMA = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 2,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": LENGTH,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
}


@dataclass(frozen=True)
class Family:
    """tolerance: of float64 logits and gradients; parts that transformers computes in float32 set it."""

    model: dict[str, Any]
    make: Callable[[], transformers.PreTrainedModel]
    weights: Callable[..., dict[str, torch.Tensor]]
    tolerance: float


def _gpt2():
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=48, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip


def _llama():
    rope = {"rope_type": "default", "rope_theta": 500.0}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**THEIR_LLAMA, rope_parameters=rope))


def _qwen2():
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**THEIR_LLAMA))


def _qwen3():
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**THEIR_LLAMA, head_dim=16))


def _gpt_neox():
    return transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
            use_parallel_residual=False, hidden_act="gelu", max_position_embeddings=LENGTH,
            bos_token_id=0, eos_token_id=0,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
        )
    )  # fmt: skip


def _mpt():
    return transformers.MptForCausalLM(
        transformers.MptConfig(vocab_size=VOCABULARY, d_model=48, n_heads=4, n_layers=2, max_seq_len=LENGTH)
    )


FAMILIES = {
    "gpt2": Family(
        {"num_layers": 3, "hidden_size": 48, "num_attention_heads": 4, "activation": "gelu_tanh"},
        _gpt2,
        from_gpt2,
        1e-11,
    ),
    "llama": Family({**LLAMA, "rotary_base": 500}, _llama, from_llama, 1e-5),
    "qwen2": Family({**LLAMA, "add_qkv_bias": True}, _qwen2, from_llama, 1e-5),
    "qwen3": Family({**LLAMA, "qk_layernorm": True, "kv_channels": 16}, _qwen3, from_llama, 1e-5),
    "gpt_neox": Family(
        {
            "num_layers": 2,
            "hidden_size": 64,
            "num_attention_heads": 4,
            "ffn_hidden_size": 96,
            "position_embedding_type": "rope",
            "rotary_percent": 0.25,
            "untie_embeddings_and_output_weights": True,
        },
        _gpt_neox,
        from_gpt_neox,
        1e-5,
    ),
    "mpt": Family(
        {
            "num_layers": 2,
            "hidden_size": 48,
            "num_attention_heads": 4,
            "position_embedding_type": "alibi",
            "disable_bias_linear": True,
        },
        _mpt,
        from_mpt,
        1e-5,
    ),
}


def make_theirs(name, dtype):
    """The transformers model of a family with random weights; vectors too, so that nothing hides behind a zero."""
    torch.manual_seed(7)
    theirs = FAMILIES[name].make().to(dtype).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.1)
    return theirs


def copy_weights(name, theirs, ours):
    """Fill our decoder with the weights of theirs; each of our parameters must have a counterpart."""
    weights = FAMILIES[name].weights(dict(theirs.named_parameters()), theirs.config)
    for key, parameter in ours.named_parameters():
        parameter.data.zero_()
        if key in weights:
            parameter.data[: len(weights[key])].copy_(weights.pop(key).detach())
        else:
            assert name == "mpt" and "layernorm.bias" in key, key
    assert not weights, f"transformers' {sorted(weights)} have no place in our decoder"
