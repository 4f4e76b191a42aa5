"""The families that folders can be of."""

from megatron.basics.registry import Registry

FAMILIES = Registry("--family", {"llama": "megatron.conversion.families.llama:LLAMA"})
