"""Layer 0: errors, options, seeds, atomic files, progress. Imports nothing of ours and no torch."""
