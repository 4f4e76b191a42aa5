"""Building csrc/ and finding what was built."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NVCC = os.environ.get("NVCC") or shutil.which("nvcc")


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the build reads."""
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "README.md").write_text("read me\n")
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    for name in ("data", "device", "objectives"):
        (tmp_path / "megatron" / name).mkdir(parents=True)
    return tmp_path


def build(checkout, **environment):
    result = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=checkout,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return [line for line in result.stdout.splitlines() if line.startswith("native ops:")]


def library(checkout):
    return checkout / "megatron" / "device" / "triarch_ops.so"


def test_without_a_compiler_one_line_says_so(checkout):
    (line,) = build(checkout, PATH="/nowhere", CXX="no-such-compiler")
    assert "not built: no C++ compiler was found" in line
    assert not library(checkout).exists()


def test_switched_off(checkout):
    (line,) = build(checkout, TRIARCH_NO_NATIVE="1")
    assert "TRIARCH_NO_NATIVE=1" in line
    assert not library(checkout).exists()


def test_a_failing_compiler_is_quoted_and_an_old_library_is_not_left_behind(checkout):
    library(checkout).write_bytes(b"built from other sources")
    compiler = checkout / "broken-c++"
    compiler.write_text("#!/bin/sh\necho 'error: out of cheese' >&2\nexit 1\n")
    compiler.chmod(0o755)
    line = build(checkout, CXX=str(compiler))[-1]
    assert "not built: broken-c++ failed: error: out of cheese" in line
    assert not library(checkout).exists()


def test_only_what_changed_is_compiled_again(checkout):
    """A compiler that writes empty files stands in for the real one: what is called when is the question."""
    compiler = checkout / "c++"
    compiler.write_text('#!/bin/sh\nfor last; do :; done\ntouch "$last"\n')
    compiler.chmod(0o755)
    compiled = [line for line in build(checkout, CXX=str(compiler)) if "compiling" in line]
    assert len(compiled) >= 3
    assert build(checkout, CXX=str(compiler)) == []
    source = checkout / "csrc" / "bindings" / "attention.cpp"
    source.write_text(source.read_text() + "\n")
    again = build(checkout, CXX=str(compiler))
    assert [line for line in again if "compiling" in line] == [
        "native ops: compiling csrc/bindings/attention.cpp (attention)"
    ]
    header = checkout / "csrc" / "attention" / "checks.h"
    header.write_text(header.read_text() + "\n")
    assert len([line for line in build(checkout, CXX=str(compiler)) if "compiling" in line]) == len(compiled)


def test_the_numpy_side_has_python_extensions_that_need_no_torch(checkout):
    (checkout / "torch.py").write_text("raise ImportError\n")
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    words = [sys.executable, "setup.py", "build_ext", "--inplace"]
    result = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert any(line.startswith("native ops: not built: torch is not installed here") for line in lines)
    for name, package in (("corruption", "objectives"), ("packing", "data")):
        assert any(line.startswith(f"native {name}: built") for line in lines) or shutil.which("c++") is None
        code = f"import numpy, sys; import megatron.{package}.{name}_native; print('torch' in sys.modules)"
        if list((checkout / "megatron" / package).glob(f"{name}_native*.so")):
            found = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True)
            assert found.stdout.strip() == "False", found.stderr


def test_torch_loads_the_twin_when_told_to():
    code = "from megatron.device.native import native_ops_available as there; print(there())"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TRIARCH_NO_NATIVE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "False"


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize(
    "architecture", [pytest.param("80", marks=pytest.mark.slow), "90", pytest.param("100", marks=pytest.mark.slow)]
)
def test_cuda_kernels_compile_without_spilling_registers(architecture, tmp_path):
    flags = ["-std=c++17", "-O3", "-Xptxas=-v", f"-gencode=arch=compute_{architecture},code=sm_{architecture}"]
    source = ROOT / "csrc" / "attention" / "interval_softmax_kernels.cu"
    result = subprocess.run(
        [NVCC, *flags, "-c", str(source), "-o", str(tmp_path / "kernels.o")], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    spills = [line for line in result.stderr.splitlines() if "bytes spill stores" in line]
    assert len(spills) >= 30, "ptxas reports every kernel"
    assert all(" 0 bytes spill stores" in line for line in spills), result.stderr
