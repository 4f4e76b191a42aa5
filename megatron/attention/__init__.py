"""Layer 2, torch side: one function, several backends, one mask type."""
