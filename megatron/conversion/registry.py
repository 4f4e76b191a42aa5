"""The families that folders can be of, the commonest first, our own class last."""

from megatron.basics.registry import Registry

FAMILIES = Registry(
    "--family",
    {
        "llama": "megatron.conversion.families.llama:LLAMA",
        "qwen2": "megatron.conversion.families.llama:QWEN2",
        "qwen3": "megatron.conversion.families.llama:QWEN3",
        "gemma": "megatron.conversion.families.gemma:GEMMA",
        "gpt2": "megatron.conversion.families.gpt2:GPT2",
        "gpt_neox": "megatron.conversion.families.gpt_neox:GPT_NEOX",
        "t5": "megatron.conversion.families.t5:T5_FAMILY",
        "umt5": "megatron.conversion.families.umt5:UMT5",
        "triarch_decoder": "megatron.conversion.families.triarch_decoder:TRIARCH_DECODER",
    },
)
