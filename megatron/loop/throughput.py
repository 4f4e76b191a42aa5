"""Model FLOP/s of a device and the share of its peak."""

from __future__ import annotations

from dataclasses import dataclass

# Dense bfloat16 TFLOP/s of one device, by a part of its name, from NVIDIA's data sheets; the first match counts.
PEAK_TFLOPS = {
    "GB200": 2500.0,
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
}


def peak_tflops_of(device_name: str) -> float | None:
    """Known dense bfloat16 peak of a device, or None (CPUs, other GPUs): then there is no MFU without --peak-tflops."""
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in device_name), None)


@dataclass(frozen=True)
class Throughput:
    """Turns tokens per second into model TFLOP/s of each device and a share of its peak."""

    flops_per_token: float
    peak_tflops: float | None = None

    def tflops_per_device(self, tokens_per_second: float, num_devices: int) -> float:
        """Model TFLOP/s of one of `num_devices` that together train `tokens_per_second`."""
        return tokens_per_second * self.flops_per_token / num_devices / 1e12

    def mfu(self, tflops_per_device: float) -> float | None:
        """Model FLOPs utilisation, 0 to 1 (Chowdhery et al. 2022, appendix B); None where the peak is not known."""
        return None if self.peak_tflops is None else tflops_per_device / self.peak_tflops
