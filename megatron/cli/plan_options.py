"""What `tools/plan.py` can be told besides the settings of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from megatron.architectures.registry import ARCHITECTURES
from megatron.basics.option import Options, option


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Options):
    """The devices, how fast they are, and what to show."""

    group: ClassVar[str] = "plan"

    architecture: str = option("causal_decoder", "What is trained.", choices=tuple(ARCHITECTURES))
    objective: str | None = option(
        None, "What the model learns to predict. Default: that of the architecture's pretrain script.", metavar="NAME"
    )
    vocab_size: int = option(32000, "Pieces of the vocabulary; the tokenizer is not read.", minimum=256)
    devices: int = option(8, "Devices that train together.", minimum=1)
    devices_per_node: int = option(8, "Devices that the faster links join.", minimum=1)
    device_memory: float = option(80.0, "Memory of a device in GB (10^9 bytes).", above=0.0)
    compute_efficiency: float = option(
        0.5, "Share of --peak-tflops (default here: 989) that matrix products reach.", above=0.0, maximum=1.0
    )
    node_bandwidth: float = option(450.0, "GB/s that a device sends to others of its node.", above=0.0)
    network_bandwidth: float = option(50.0, "GB/s that a device sends to other nodes.", above=0.0)
    top: int = option(20, "Layouts to list; 0 lists all that fit.", minimum=0)
    json: str | None = option(None, "Also write everything to this file, with the layouts that do not fit and why.")
