from __future__ import annotations

from pathlib import Path

import pytest
from task_folders import write_tasks


@pytest.fixture
def tasks(tmp_path: Path, sentencepiece_model: Path) -> dict[str, str]:
    """Flags of a preparation of small data sets."""
    return {**write_tasks(tmp_path), "--tokenizer-model": str(sentencepiece_model)}
