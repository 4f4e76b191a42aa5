"""Training steps of every kind of model on one GPU, and what a checkpoint brings back."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from benchmarks.training_steps import StepShape, example_batch
from megatron.architectures.causal_decoder import CausalDecoder
from megatron.attention.registry import choose_backend
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.load import load_newest
from megatron.checkpoint.options import CheckpointOptions
from megatron.checkpoint.state import scalar_optimizer_state
from megatron.device.device import choose_device
from megatron.layout import grid as grids
from megatron.layout.options import LayoutOptions
from megatron.loop.options import OptimizerOptions
from megatron.loop.saving import Saver
from megatron.loop.setup import ModelRecipe, build_chunks, compute_dtype, make_trainable
from megatron.loop.step import LossRule, train_step

SHAPE = StepShape(
    name="test", hidden_size=128, num_layers=2, num_heads=4, seq_length=96, vocabulary_size=256, batch_size=4
)
LLAMA = {
    "position_embedding_type": "rope",
    "normalization": "RMSNorm",
    "activation": "swiglu",
    "num_query_groups": 2,
    "qk_layernorm": True,
    "disable_bias_linear": True,
    "untie_embeddings_and_output_weights": True,
}
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}


@pytest.fixture(scope="module")
def world():
    """One process, its device and its groups."""
    os.environ.pop("MASTER_PORT", None)
    device = choose_device("cuda")
    grid = grids.initialise(LayoutOptions(), device)
    yield grid, device
    grids.shut_down()


class Run:
    """A small model in training."""

    def __init__(self, world, *, model=(), optimizer=(), layout=(), backend="auto", is_causal=True, seed=1):
        self.grid, self.device = world
        self.options = OptimizerOptions(lr=2e-3, **dict(optimizer))
        layout = LayoutOptions(**dict(layout))
        recipe = ModelRecipe(
            architecture=CausalDecoder(),
            model=dataclasses.replace(SHAPE.model, **dict(model)),
            vocabulary_size=SHAPE.vocabulary_size,
            max_positions=SHAPE.seq_length,
            seed=seed,
        )
        _, attend = choose_backend(backend, is_cuda=True, is_causal=is_causal)
        config, chunks = build_chunks(recipe, layout, self.grid, self.device, compute_dtype(self.options), attend)
        self.model = make_trainable(config, chunks, layout, self.options)
        self.rule = LossRule(
            architecture=CausalDecoder(),
            vocabulary_size=SHAPE.vocabulary_size,
            z_loss_coeff=self.options.z_loss_coeff,
        )
        batch = example_batch(SHAPE, self.device)
        visibility = dataclasses.replace(batch.visibility, is_causal=is_causal)
        self.batch = dataclasses.replace(batch, visibility=visibility)

    def step(self, number):
        return train_step(
            self.model,
            [self.batch, self.batch],
            self.rule,
            self.grid,
            self.device,
            dropout_seed=number,
            learning_rate=self.options.lr,
        )

    def losses(self, steps, first=0):
        results = [self.step(number) for number in range(first, first + steps)]
        assert not any(result.nonfinite for result in results)
        return [total / count for total, count in (result.losses["lm loss"] for result in results)]

    def tensors(self):
        """Everything that lasts from step to step, by name."""
        chunk = self.model.chunks[0]
        yield from chunk.named_parameters()
        yield from chunk.named_buffers()
        inner = self.model.inner_optimizer.optimizer
        for number, state in enumerate(inner.state.values()):
            yield from ((f"{name} of {number}", value) for name, value in state.items())


VARIANTS = {
    "gpt2-fp32": {},
    "gpt2-bf16": {"optimizer": {"bf16": True}},
    "gpt2-fp16": {"optimizer": {"fp16": True, "initial_loss_scale": 1.0}},
    "llama-bf16": {"model": LLAMA, "optimizer": {"bf16": True, "z_loss_coeff": 1e-4}},
    "documents-sdpa": {"model": LLAMA, "optimizer": {"bf16": True}, "is_causal": False, "backend": "sdpa"},
    "documents-fused": {"model": LLAMA, "optimizer": {"bf16": True}, "is_causal": False, "backend": "fused_softmax"},
    "alibi": {"model": {"position_embedding_type": "alibi"}, "optimizer": {"bf16": True}},
    "relative": {"model": {"position_embedding_type": "relative"}, "optimizer": {"bf16": True}},
    "dropout": {"model": DROPOUT, "optimizer": {"bf16": True}},
    "dropout-fused": {"model": DROPOUT, "optimizer": {"bf16": True}, "backend": "fused_softmax"},
    "recompute-full": {"model": DROPOUT, "optimizer": {"bf16": True}, "layout": {"recompute_granularity": "full"}},
    "overlap": {"optimizer": {"bf16": True}, "layout": {"overlap_grad_reduce": True, "overlap_param_gather": True}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_model_learns_on_the_gpu(world, name):
    run = Run(world, **VARIANTS[name])
    losses = run.losses(25)
    assert losses[-1] < losses[0] - 0.3
    assert {name: tensor.device.type for name, tensor in run.tensors() if tensor.device.type != "cuda"} == {}


@pytest.mark.parametrize("model", [{}, LLAMA], ids=["gpt2", "llama"])
def test_backends_agree_in_float32(world, model):
    sdpa = Run(world, model=model, backend="sdpa").losses(10)
    fused = Run(world, model=model, backend="fused_softmax").losses(10)
    assert fused == pytest.approx(sdpa, rel=1e-4)


@pytest.mark.parametrize("layout", [{"recompute_granularity": "full"}, {"recompute_granularity": "selective"}], ids=str)
def test_recomputation_changes_nothing(world, layout):
    """With dropout on: the generator must come back to where it was."""
    common = {"model": DROPOUT, "backend": "fused_softmax"}
    assert Run(world, layout=layout, **common).losses(5) == pytest.approx(Run(world, **common).losses(5), rel=1e-6)


def test_precisions_begin_alike(world):
    # The loss is a sum over tokens until its one division, so float16 needs no further scale.
    exact = Run(world).losses(5)
    for optimizer in ({"bf16": True}, {"fp16": True, "initial_loss_scale": 1.0}):
        assert Run(world, optimizer=optimizer).losses(5) == pytest.approx(exact, rel=1e-2)


def test_a_float16_overflow_is_skipped_and_halves_the_scale(world):
    run = Run(world, optimizer={"fp16": True, "initial_loss_scale": 2.0**40, "hysteresis": 1})
    before = [parameter.clone() for parameter in run.model.chunks[0].parameters()]
    first = run.step(0)
    assert first.overflow and first.loss_scale == 2.0**40
    assert all(torch.equal(a, b) for a, b in zip(before, run.model.chunks[0].parameters(), strict=True))
    assert run.step(1).loss_scale == 2.0**39


@pytest.mark.parametrize("optimizer", [{}, {"bf16": True}, {"fp16": True}], ids=str)
def test_a_checkpoint_brings_back_every_bit(world, optimizer, tmp_path: Path):
    run = Run(world, model=DROPOUT, optimizer=optimizer)
    run.losses(3)
    scalars = scalar_optimizer_state(run.model.inner_optimizer)
    contents = Contents(progress=Progress(iteration=3), run={}, tokenizer={}, lineage=[], optimizer=scalars)
    Saver(CheckpointOptions(save=str(tmp_path)), tmp_path, run.model, run.grid, print).save(contents, wait=True)
    other = Run(world, model=DROPOUT, optimizer=optimizer, seed=2)
    other.losses(1)
    load_newest(tmp_path, other.grid, [chunk.module for chunk in other.model.chunks], other.model.inner_optimizer)
    for (name, mine), (_, theirs) in zip(run.tensors(), other.tensors(), strict=True):
        assert torch.equal(mine, theirs), name
    # Kernels that add atomically make no two runs bitwise equal; a lost moment or scale would show at once.
    assert other.losses(3, first=3) == pytest.approx(run.losses(3, first=3), rel=1e-4)
