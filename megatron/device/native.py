"""The compiled ops of csrc/: loaded once where they were built, replaced by plain torch where not.

`python setup.py build_ext --inplace` builds them into triarch_ops.so beside this file. TRIARCH_NO_NATIVE=1 leaves
them alone, at build time and at run time; TRIARCH_CPU_LEVEL=avx2 or baseline keeps the CPU ops from newer instructions.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path

import torch

from megatron.basics.errors import UserError

logger = logging.getLogger(__name__)

CPU_LEVELS = (None, "avx2", "baseline")
OPS = ("interval_softmax", "interval_attention", "exponentials_", "activation", "rms_norm")
LIBRARY = Path(__file__).with_name("triarch_ops.so")


@cache
def native_ops_available() -> bool:
    """Whether the ops of torch.ops.triarch are there; the first call loads them and logs what was found."""
    level = os.environ.get("TRIARCH_CPU_LEVEL")
    if level not in CPU_LEVELS:
        raise UserError(f"TRIARCH_CPU_LEVEL={level} is not known; set it to avx2 or baseline, or leave it out.")
    if os.environ.get("TRIARCH_NO_NATIVE") == "1":
        logger.info("native ops: switched off by TRIARCH_NO_NATIVE=1; plain torch does the same work, more slowly")
        return False
    if not LIBRARY.exists():
        logger.info("native ops: not built (run `make setup`); plain torch does the same work, more slowly")
        return False
    try:
        torch.ops.load_library(LIBRARY)
    except OSError as error:  # built against another torch, or for another machine
        logger.warning(
            "native ops: %s cannot be loaded (%s); run `make setup` again. Plain torch is used.", LIBRARY, error
        )
        return False
    if not all(hasattr(torch.ops.triarch, name) for name in OPS):
        logger.warning("native ops: %s is older than this code; run `make setup` again. Plain torch is used.", LIBRARY)
        return False
    from megatron.device import native_autograd

    native_autograd.register()
    logger.info("native ops: loaded, CPU loops for %s", torch.ops.triarch.cpu_loops())
    return True
