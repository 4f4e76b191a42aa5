"""FusedAdam against torch's own AdamW and Adam, and the interface that megatron-core expects of it."""

import copy

import pytest
import torch

from megatron.device import fused_adam
from megatron.device.fused_adam import FusedAdam

SETTINGS = {"lr": 3e-2, "betas": (0.9, 0.95), "eps": 1e-8}


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(7, 5), (11,), (3, 2, 4)]]


def groups_of(params):
    return [{"params": params[:2], "weight_decay": 0.3}, {"params": params[2:], "weight_decay": 0.0, "lr": 1e-2}]


def walk(optimizer, params, steps, first=0):
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(100 + step)
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator) * 10.0 ** (step % 5 - 2)
        optimizer.step()


@pytest.mark.parametrize(("adam_w_mode", "reference"), [(True, torch.optim.AdamW), (False, torch.optim.Adam)])
def test_twenty_steps_are_torchs(adam_w_mode, reference):
    ours, theirs, start = parameters(), parameters(), parameters()
    walk(FusedAdam(groups_of(ours), adam_w_mode=adam_w_mode, **SETTINGS), ours, 20)
    walk(reference(groups_of(theirs), foreach=False, fused=False, **SETTINGS), theirs, 20)
    for mine, other, before in zip(ours, theirs, start, strict=True):
        assert torch.allclose(mine, other, rtol=1e-6, atol=1e-6)
        assert (mine - before).abs().max() > 0.05


def test_the_step_belongs_to_the_group_and_moments_to_the_parameter():
    params = parameters()
    optimizer = FusedAdam(groups_of(params), **SETTINGS)
    walk(optimizer, params, 3)
    assert [group["step"] for group in optimizer.param_groups] == [3, 3]
    assert all(set(optimizer.state[param]) == {"exp_avg", "exp_avg_sq"} for param in params)


def test_a_group_without_parameters_counts_too():
    optimizer = FusedAdam([{"params": parameters()}, {"params": []}], **SETTINGS)
    optimizer.step()
    assert [group["step"] for group in optimizer.param_groups] == [1, 1]


def test_a_loaded_optimizer_goes_on_to_the_bit():
    whole, parted = parameters(), parameters()
    walk(FusedAdam(groups_of(whole), **SETTINGS), whole, 8)
    first = FusedAdam(groups_of(parted), **SETTINGS)
    walk(first, parted, 5)
    saved = copy.deepcopy(first.state_dict())
    second = FusedAdam(groups_of(parted), **SETTINGS)
    second.load_state_dict(saved)
    walk(second, parted, 3, first=5)
    assert all(torch.equal(a, b) for a, b in zip(whole, parted, strict=True))


def test_megatron_core_takes_it():
    from tests.oracles.one_process_model import DEVICE

    assert not DEVICE.is_cuda
    from megatron.core.optimizer import Adam, distrib_optimizer

    if fused_adam.library_with_fused_adam():
        assert Adam is not FusedAdam
    else:
        assert Adam is FusedAdam and distrib_optimizer.Adam is FusedAdam


def test_the_web_toolkit_called_apex_is_not_mistaken_for_nvidias(monkeypatch):
    installed = {"apex"}
    monkeypatch.setattr(fused_adam.importlib.util, "find_spec", lambda name: name in installed or None)
    assert fused_adam.library_with_fused_adam() is None
    installed.add("apex.optimizers")
    assert fused_adam.library_with_fused_adam() == "apex"
