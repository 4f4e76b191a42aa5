"""Choosing a device, sharing its cores, and refusing what was never tested."""

import importlib.metadata
import subprocess
import sys

import pytest
import torch

import megatron
from megatron.basics.errors import UserError
from megatron.device import cpu_tuning, device


@pytest.fixture
def threads(monkeypatch):
    """The thread counts that were asked for; nothing is set."""
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(cpu_tuning.os, "sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.setattr(cpu_tuning, "_keep_freed_memory", lambda: None)
    for name in ("OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return asked


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, [12]),
        ({"LOCAL_WORLD_SIZE": "4"}, [3]),
        ({"LOCAL_WORLD_SIZE": "5"}, [2]),
        ({"LOCAL_WORLD_SIZE": "64"}, [1]),
        ({"OMP_NUM_THREADS": "7"}, []),
        ({"OMP_NUM_THREADS": "1"}, []),
        ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2"}, [6]),
        ({"OMP_NUM_THREADS": "2", "TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2"}, []),
    ],
)
def test_ranks_share_the_cores_unless_someone_has_said_otherwise(environment, expected, threads, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cpu_tuning.apply()
    assert threads == expected


FAULTS_OF_FIVE_ALLOCATIONS = """
import resource, sys, torch
from megatron.device import cpu_tuning
if sys.argv[1] == "tuned":
    cpu_tuning.apply()
for _ in range(30):  # the heap grows for some allocations before it is reused
    torch.ones(8 << 20)  # 32 MB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(8 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_freed_memory_is_kept(monkeypatch):
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)

    def faults(how):
        program = [sys.executable, "-c", FAULTS_OF_FIVE_ALLOCATIONS, how]
        return int(subprocess.run(program, capture_output=True, text=True, check=True).stdout)

    plain, tuned = faults("plain"), faults("tuned")
    if plain < 50:
        pytest.skip("this C library keeps freed memory by itself, or pages are huge")
    assert tuned < plain / 10


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: no NVIDIA GPU is usable here"):
        device.choose_device("cuda")
    chosen = device.choose_device("auto")
    assert chosen == device.choose_device("cpu")
    assert (chosen.is_cuda, chosen.collective_backend) == (False, "gloo")


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"LOCAL_RANK 2\) than it has GPUs \(2\)"):
        device.choose_device("cuda")


def test_facts_of_the_cpu():
    cpu = device.Device(torch.device("cpu"))
    tensor = torch.ones(3)
    assert cpu.put(tensor) is tensor
    assert cpu.name.startswith("CPU (")
    held = torch.ones(64 << 20, dtype=torch.uint8)
    assert cpu.peak_memory_bytes() > held.numel()
    assert cpu.clock() <= cpu.clock()


def test_the_tested_megatron_core_is_accepted():
    device.require_supported_versions()


@pytest.mark.parametrize("version", ["0.15.3", "0.17.0", "1.0", "0.160.0"])
def test_other_versions_are_refused(version, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    with pytest.raises(UserError, match=f"megatron-core {version} was never tested with Triarch; install"):
        device.require_supported_versions()


def test_a_missing_megatron_core_is_named(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(UserError, match="megatron-core is not installed; run `make setup`"):
        device.require_supported_versions()


def test_a_package_that_hides_megatron_core_is_named(monkeypatch):
    monkeypatch.setattr(megatron, "__file__", "/somewhere/megatron/__init__.py", raising=False)
    with pytest.raises(UserError, match=r"/somewhere/megatron/__init__\.py makes `megatron` a plain package"):
        device.require_supported_versions()
