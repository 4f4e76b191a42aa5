"""Layer 2, numpy side: text to tokens and back."""
