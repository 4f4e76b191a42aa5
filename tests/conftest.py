"""How tests share the cores, where pytest is started with `-n 2 --dist loadgroup`; no test is timed."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

DISTRIBUTED = Path(__file__).parent / "distributed"


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Jobs of several processes come one after the other; other tests stay with their file and its fixtures."""
    for item in items:
        is_job = DISTRIBUTED in item.path.parents
        item.add_marker(pytest.mark.xdist_group("distributed" if is_job else str(item.path)))
