"""Layer 5: what a trained model is worth, and what it writes."""
