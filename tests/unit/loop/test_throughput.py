"""FLOP/s of a device, and the peaks that they are compared with."""

from __future__ import annotations

import pytest

from megatron.loop.throughput import Throughput, peak_tflops_of


def test_share_of_the_peak() -> None:
    throughput = Throughput(flops_per_token=6e9, peak_tflops=100.0)
    assert throughput.tflops_per_device(50_000.0, 4) == pytest.approx(75.0)
    assert throughput.mfu(75.0) == 0.75
    assert Throughput(flops_per_token=6e9).mfu(75.0) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA GB200", 2500.0),
        ("Intel(R) Xeon(R)", None),
    ],
)
def test_known_peaks(name: str, peak: float | None) -> None:
    assert peak_tflops_of(name) == peak
