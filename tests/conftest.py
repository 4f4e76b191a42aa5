"""How tests share the cores, where pytest is started with `-n 2 --dist loadfile`; no test is timed."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

with contextlib.suppress(ImportError):  # a GPU machine without a network may lack it
    from hypothesis import settings

    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")

JOBS = "tests/distributed/"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One worker for jobs of several processes, which come one after the other; other tests stay with their file."""
    from xdist.scheduler import LoadScopeScheduling

    class JobsInOneWorker(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return JOBS if nodeid.startswith(JOBS) else nodeid.split("::")[0]

    return JobsInOneWorker(config, log)
