"""Compiled Python extensions: loaded once where they were built, done without where not.

`python setup.py build_ext --inplace` builds them from csrc/. TRIARCH_NO_NATIVE=1 leaves them alone, at build time and
at run time. Each has a twin whose results are the same to the bit.
"""

from __future__ import annotations

import importlib
import logging
import os
from functools import cache
from types import ModuleType

logger = logging.getLogger(__name__)


@cache
def native_extension(module: str, purpose: str, twin: str) -> ModuleType | None:
    """The extension, or None where its twin does the work; the first call logs what is used and why.

    purpose: what it does, for the log. twin: what does the same work, e.g. numpy.
    """
    if os.environ.get("TRIARCH_NO_NATIVE") == "1":
        logger.info("native %s: switched off by TRIARCH_NO_NATIVE=1; %s does the same work, more slowly", purpose, twin)
        return None
    try:
        extension = importlib.import_module(module)
    except ModuleNotFoundError:
        logger.info("native %s: not built (run `make setup`); %s does the same work, more slowly", purpose, twin)
        return None
    except ImportError as error:  # built for another Python or another machine
        reason = "native %s: cannot be loaded (%s); run `make setup` again. %s is used."
        logger.warning(reason, purpose, error, twin[0].upper() + twin[1:])
        return None
    logger.info("native %s: loaded", purpose)
    return extension
