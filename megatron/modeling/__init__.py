"""Layer 2, torch side: the model's parts on megatron-core."""
