"""Layer 1: the only place that knows cuda from cpu, compiled from not."""
