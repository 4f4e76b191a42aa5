"""Gemma (Gemma Team 2024): Llama with gated GELU, norms by 1 + weight, and words scaled by the width.

Source: transformers' GemmaForCausalLM. Gemma 2 and 3 are other models; see `near_relatives`.
"""

from __future__ import annotations

from megatron.conversion.families import llama
from megatron.conversion.family import Family

ACTIVATION = "gelu_pytorch_tanh"

GEMMA = Family(
    name="gemma",
    model_type="gemma",
    class_name="GemmaForCausalLM",
    architectures=("causal_decoder",),
    fixed={
        **llama.FORM,
        "activation": "geglu_tanh",
        "add_qkv_bias": False,
        "qk_layernorm": False,
        "apply_layernorm_1p": True,
        "scale_embeddings": True,
    },
    sizes=llama.SIZES,
    expected={"hidden_act": ACTIVATION, "attention_bias": False},
    # Older versions computed with hidden_activation where it was there.
    legal={**llama.LEGAL, "hidden_activation": (None, ACTIVATION), "use_bidirectional_attention": (None, False)},
    rules=llama.rules,
    read=llama.read,
    write=llama.write,
    copies=llama.COPIES,
    ignored=llama.IGNORED,
)
