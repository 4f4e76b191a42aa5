"""Layer 4: saving and loading a run, complete or absent, on any layout."""
