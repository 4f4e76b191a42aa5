"""The patch points on which megatron-core runs on CPU: each is needed, none is missing."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron.device import cpu_emulation
from tests.oracles.one_process_model import DEVICE


def source_of(name):
    return Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")


def test_every_cuda_literal_of_the_installed_megatron_core_is_known():
    assert cpu_emulation.unpatched_cuda_literals() == []


@pytest.mark.parametrize("name", cpu_emulation.MODULES_WITH_CUDA_LITERALS)
def test_each_patched_module_still_needs_it(name):
    assert cpu_emulation.CUDA_LITERAL.search(source_of(name)), f"{name} has no CUDA literal any more: drop its patch"


@pytest.mark.parametrize("name", cpu_emulation.MODULES_WITH_CUDA_LITERALS)
def test_a_forgotten_module_is_found(name, monkeypatch):
    rest = {key: why for key, why in cpu_emulation.MODULES_WITH_CUDA_LITERALS.items() if key != name}
    monkeypatch.setattr(cpu_emulation, "MODULES_WITH_CUDA_LITERALS", rest)
    assert cpu_emulation.unpatched_cuda_literals() == [name]


@pytest.mark.parametrize("part", cpu_emulation.NEVER_REACHED)
def test_each_exemption_covers_something(part, monkeypatch):
    monkeypatch.setattr(cpu_emulation, "NEVER_REACHED", ())
    everything = cpu_emulation.unpatched_cuda_literals()
    assert any(part in name for name in everything), f"{part} exempts no module any more: drop it"


def test_a_symbol_that_is_gone_stops_the_program():
    with pytest.raises(RuntimeError, match=r"torch\.cuda has no no_such_symbol: this megatron-core or torch is not"):
        cpu_emulation._replace(torch.cuda, "no_such_symbol", None)


def test_cuda_factories_make_cpu_tensors_in_patched_modules_alone():
    for name in cpu_emulation.MODULES_WITH_CUDA_LITERALS:
        module = importlib.import_module(name)
        for device in ("cuda", torch.device("cuda"), 0):
            assert module.torch.zeros(2, device=device).device.type == "cpu"
        assert module.torch.zeros(2, device="meta").device.type == "meta"
        assert module.torch.nn is torch.nn
    if not torch.cuda.is_available():
        with pytest.raises((AssertionError, RuntimeError)):
            torch.zeros(2, device="cuda")


def test_type_names_are_answered_to_the_optimizer_alone():
    assert torch.zeros(1).type() == "torch.FloatTensor"
    call = {"torch": torch, "__name__": "megatron.core.optimizer.somewhere"}
    for dtype, name in (("float32", "Float"), ("float16", "Half"), ("bfloat16", "BFloat16")):
        assert eval(f"torch.zeros(1, dtype=torch.{dtype}).type()", call) == f"torch.cuda.{name}Tensor"


def test_dropout_generators_fork_and_come_back():
    from megatron.core.tensor_parallel import get_cuda_rng_tracker, model_parallel_cuda_manual_seed

    from tests.oracles.one_process_model import one_process_grid

    one_process_grid()
    model_parallel_cuda_manual_seed(5)
    outside = torch.rand(3)
    with get_cuda_rng_tracker().fork():
        inside = torch.rand(3)
    after = torch.rand(3)
    model_parallel_cuda_manual_seed(5)
    assert torch.equal(torch.rand(3), outside) and torch.equal(torch.rand(3), after)
    with get_cuda_rng_tracker().fork():
        assert torch.equal(torch.rand(3), inside)
    assert not torch.equal(inside, outside)


@pytest.mark.parametrize("chunks", [None, 2])
def test_interleaved_pipelines_never_batch_their_messages(chunks):
    """Over gloo they would swap activations with gradients without an error."""
    from megatron.layout.options import LayoutOptions
    from megatron.modeling.config import transformer_config
    from megatron.modeling.options import ModelOptions

    layout = LayoutOptions(pipeline_model_parallel_size=2, num_virtual_stages_per_pipeline_rank=chunks)
    config = transformer_config(ModelOptions(), layout, DEVICE, torch.float32, [1] * 2 * (chunks or 1))
    assert config.batch_p2p_comm == (chunks is None)


def test_installing_twice_does_no_harm():
    before = torch.Tensor.type
    cpu_emulation.install()
    assert torch.Tensor.type is before


def test_megatron_core_is_untouched_before_a_device_is_chosen():
    """Importing our device layer changes nothing; only choosing the CPU does."""
    program = "import torch, megatron.device.cpu_emulation as e; assert not e._installed; print(torch.cuda.synchronize)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "<function synchronize" in done.stdout
