"""Layer 7: options to flags, and one main() for each command."""
