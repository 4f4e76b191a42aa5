"""What the device can do beyond being there."""

from __future__ import annotations

from functools import cache

import torch

# Compute capabilities whose cuDNN attention is 1.7 to 2.3 times as fast as torch's default: Hopper and
# data-centre Blackwell. On Ampere and Ada it is slower or even.
_CUDNN_ATTENTION_CAPABILITIES = (9, 10)


@cache
def prefers_cudnn_attention(device: torch.device) -> bool:
    """Whether cuDNN's attention kernel is the fastest of torch's on this device."""
    if device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device)[0] in _CUDNN_ATTENTION_CAPABILITIES


def reads_back_for_free(device: torch.device) -> bool:
    """Whether the host can look at the values of a tensor on this device without waiting for queued work."""
    return device.type == "cpu"
