"""Ours against its peers, in the same run."""
