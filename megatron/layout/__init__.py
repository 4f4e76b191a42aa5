"""Layer 1: tensor x pipeline x virtual pipeline x data parallelism."""
