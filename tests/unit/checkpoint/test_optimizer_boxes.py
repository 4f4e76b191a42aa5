"""Boxes hold a flat range of a tensor, each element once; a rank's boxes are the optimizer's own memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.architectures.registry import ARCHITECTURES
from megatron.attention.registry import choose_backend
from megatron.checkpoint.optimizer_boxes import boxes_of_range, optimizer_boxes
from megatron.checkpoint.state import model_state
from megatron.layout.options import LayoutOptions
from megatron.loop.options import OptimizerOptions
from megatron.loop.setup import ModelRecipe, TrainableModel, build_chunks, compute_dtype, make_trainable
from megatron.modeling.options import ModelOptions
from tests.oracles.one_process_model import DEVICE, one_process_grid

SHAPES = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


@given(data=st.data(), shape=SHAPES)
def test_boxes_are_the_range(data: st.DataObject, shape: tuple[int, ...]) -> None:
    whole = np.arange(math.prod(shape)).reshape(shape)
    start = data.draw(st.integers(0, whole.size))
    end = data.draw(st.integers(start, whole.size))
    boxes = boxes_of_range(shape, start, end)
    cuts = [tuple(slice(o, o + n) for o, n in zip(offset, part, strict=True)) for offset, part in boxes]
    parts = [whole[cut].reshape(-1) for cut in cuts]
    assert [len(part) for part in parts] == [math.prod(part) for _, part in boxes]
    assert np.concatenate([*parts, np.empty(0, int)]).tolist() == list(range(start, end))
    assert len(boxes) <= max(1, 2 * len(shape) - 1)


@pytest.fixture(params=[{}, {"bf16": True}], ids=["fp32", "bf16"])
def trainable(request: pytest.FixtureRequest) -> TrainableModel:
    recipe = ModelRecipe(
        architecture=ARCHITECTURES["causal_decoder"](),
        model=ModelOptions(
            num_layers=2,
            hidden_size=16,
            num_attention_heads=2,
            make_vocab_size_divisible_by=8,
            activation="swiglu",
            position_embedding_type="relative",
        ),
        vocabulary_size=40,
        max_positions=8,
        seed=1,
    )
    options = OptimizerOptions(**request.param)
    _, attend = choose_backend("sdpa")
    config, chunks = build_chunks(recipe, LayoutOptions(), one_process_grid(), DEVICE, compute_dtype(options), attend)
    return make_trainable(config, chunks, LayoutOptions(), options)


def test_boxes_are_views_of_the_optimizer(trainable: TrainableModel) -> None:
    """Described without a copy, and all of it: every parameter has three states of its own shape."""
    optimizer = trainable.inner_optimizer
    chunk = trainable.chunks[0].module
    boxes = optimizer_boxes(optimizer, model_state([chunk]))
    inner = optimizer.optimizer
    states = [p for group in inner.param_groups for p in group["params"]]
    states += [state for p in states for state in inner.state[p].values()]
    memory = {tensor.untyped_storage().data_ptr() for tensor in states}
    assert {box.data.untyped_storage().data_ptr() for box in boxes} <= memory
    parameters = dict(chunk.named_parameters())
    for name, parameter in parameters.items():
        for state in ("param", "exp_avg", "exp_avg_sq"):
            own = [box for box in boxes if box.key == f"optimizer.state.{state}.{name}"]
            assert {box.global_shape for box in own} == {tuple(parameter.shape)}
            assert sum(box.data.numel() for box in own) == parameter.numel()
    assert {box.key.split(".", 3)[3] for box in boxes} == set(parameters)
