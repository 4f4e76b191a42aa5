"""The training-step benchmark compares equal work."""

from __future__ import annotations

import math
from unittest.mock import Mock

import pytest
import torch

from benchmarks import architecture_steps
from benchmarks.training_steps import StepShape, hugging_face_step, interleave, median_ratio, our_step
from tests.oracles.one_process_model import DEVICE, one_process_grid

SHAPE = StepShape(
    name="toy", hidden_size=32, num_layers=2, num_heads=2, seq_length=64, vocabulary_size=256, batch_size=2
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_both_train_a_model_of_the_same_size_on_the_same_tokens(dtype: torch.dtype) -> None:
    steps = {
        "ours": our_step(SHAPE, DEVICE, one_process_grid(), dtype),
        "peer": hugging_face_step(SHAPE, DEVICE, dtype),  # asserts that the sizes agree
    }
    for step in steps.values():
        first = step()
        assert first == pytest.approx(math.log(SHAPE.vocabulary_size), abs=0.1)
        assert min(step() for _ in range(5)) < first
    seconds = interleave(steps, DEVICE, rounds=2, warm_up=1)
    assert {name: len(times) for name, times in seconds.items()} == {"ours": 2, "peer": 2}


def test_the_head_at_targets_and_at_all_positions_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    step_of = Mock(wraps=architecture_steps.step_of)
    monkeypatch.setattr(architecture_steps, "step_of", step_of)
    at_targets, everywhere = architecture_steps.target_steps(DEVICE, one_process_grid()).values()
    positions, none = (call.args[1].head_positions for call in step_of.call_args_list)
    assert none is None and positions.shape[1] == architecture_steps.BATCH * architecture_steps.PROMPT_TARGETS
    assert [at_targets(), at_targets()] == pytest.approx([everywhere(), everywhere()], rel=1e-5)


def test_the_ratio_is_taken_round_by_round() -> None:
    assert median_ratio([1.0, 10.0, 1.0], [2.0, 20.0, 9.0]) == 2.0
    assert median_ratio([1.0, 2.0], [2.0, 8.0]) == 3.0
