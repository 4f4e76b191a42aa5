"""megatron-core and its optimizer come up without torch's compiler, which nothing in a run uses."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import torch
compile_function = torch.compile
from megatron.device.device import choose_device
choose_device("cpu")
assert torch.compile is compile_function
import megatron.cli.training
from megatron.device.fused_adam import FusedAdam
parameter = torch.nn.Parameter(torch.ones(3))
optimizer = FusedAdam([parameter], lr=0.1)
parameter.grad = torch.ones(3)
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
optimizer.zero_grad()
assert parameter.grad is None and optimizer.param_groups[0]["step"] == 1
from megatron.core.fusions.fused_bias_swiglu import swiglu
x = torch.randn(2, 6)
assert torch.equal(swiglu(x), torch.nn.functional.silu(x[:, :3]) * x[:, 3:])
found = {"torch._dynamo", "torch._inductor", "transformers", "tensorboard", "wandb"} & set(sys.modules)
print("imported:", *sorted(found))
"""


def test_the_compiler_stays_away() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines()[-1] == "imported:"


def test_tensorboard_can_be_imported_afterwards() -> None:
    program = "from megatron.device.device import choose_device; choose_device('cpu'); import torch.utils.tensorboard"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
