"""Random numbers as functions of what they are for: nothing depends on who drew before."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(seed: int, *purpose: int | str) -> int:
    """A 63-bit seed that is a function of the run's seed and a purpose, e.g. ("weights", "decoder.layers.0...")."""
    text = "\x1f".join([str(seed), *map(str, purpose)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & (2**63 - 1)


def generator_for(seed: int, *purpose: int | str) -> np.random.Generator:
    """A numpy generator for one purpose, e.g. (seed, "objective", sample_index)."""
    return np.random.Generator(np.random.PCG64(seed_for(seed, *purpose)))
