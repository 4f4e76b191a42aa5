"""Layer 2, numpy side: pure functions from a window to examples."""
