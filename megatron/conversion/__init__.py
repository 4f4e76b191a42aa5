"""Layer 5: checkpoints to Hugging Face folders and back, each with a proof."""
