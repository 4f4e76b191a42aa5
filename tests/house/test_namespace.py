"""`megatron` is a namespace beside the installed megatron.core: names that would hide either are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.house.sources import PACKAGE, ROOT

FORBIDDEN = (
    *("core", "training", "inference", "legacy", "post_training", "rl", "bridge", "energon", "elastification"),
    *("model", "mpu", "optimizer", "tokenizer", "fused_kernels", "schedules"),
)


def test_no_file_closes_the_namespace() -> None:
    assert not (PACKAGE / "__init__.py").exists()
    assert not (ROOT / "tests" / "megatron").exists()


def test_no_name_that_is_megatron_lms() -> None:
    taken = {path.stem for path in PACKAGE.iterdir()}
    assert taken.isdisjoint(FORBIDDEN)


def test_both_halves_import_and_a_stray_init_would_hide_one(tmp_path: Path) -> None:
    program = "import megatron.basics.errors, megatron.core; print(megatron.__path__)"
    both = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert both.returncode == 0, both.stderr
    (tmp_path / "megatron").mkdir()
    (tmp_path / "megatron" / "__init__.py").touch()
    hidden = subprocess.run(
        [sys.executable, "-c", "import megatron.core"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "No module named 'megatron.core'" in hidden.stderr
