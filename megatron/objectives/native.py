"""The compiled half of the objectives: loaded once where it was built, replaced by numpy where not.

`python setup.py build_ext --inplace` builds csrc/corruption into a Python extension beside this file.
TRIARCH_NO_NATIVE=1 leaves it alone, at build time and at run time. Results are the same to the bit.
"""

from __future__ import annotations

import importlib
import logging
import os
from functools import cache
from types import ModuleType

logger = logging.getLogger(__name__)


@cache
def native_corruption() -> ModuleType | None:
    """The extension, or None where numpy does its work; the first call logs what is used and why."""
    if os.environ.get("TRIARCH_NO_NATIVE") == "1":
        logger.info("native corruption: switched off by TRIARCH_NO_NATIVE=1; numpy does the same work, more slowly")
        return None
    try:
        extension = importlib.import_module("megatron.objectives.corruption_native")
    except ModuleNotFoundError:
        logger.info("native corruption: not built (run `make setup`); numpy does the same work, more slowly")
        return None
    except ImportError as error:  # built for another Python or another machine
        logger.warning("native corruption: cannot be loaded (%s); run `make setup` again. Numpy is used.", error)
        return None
    logger.info("native corruption: loaded")
    return extension
