"""Layer 4: steps until done."""
