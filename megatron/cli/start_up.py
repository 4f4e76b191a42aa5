"""What every command that computes does first."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Our own remarks at start-up reach the log of rank 0; libraries are heard when they fail."""
    warnings.filterwarnings("ignore", module=r"megatron\.core|torch\.")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("megatron.core").setLevel(logging.ERROR)
    is_main = os.environ.get("RANK", "0") == "0"
    logging.getLogger("megatron").setLevel(logging.INFO if is_main else logging.ERROR)
