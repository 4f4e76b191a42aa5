"""Whole training steps of the same model: ours, and Hugging Face's GPT-2 as its peer.

Everybody gets the same batches on the device and does the same work: forward, cross entropy, backward, clipping to norm
1, AdamW, and the loss read back on the host. Dropout is off, the activation is the exact GELU for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.architectures.causal_decoder import CausalDecoder
from megatron.architectures.flops import causal_pairs, flops_per_token
from megatron.architectures.shapes import ModelShape
from megatron.architectures.weights import count_parameters
from megatron.attention.registry import choose_backend
from megatron.device.device import Device
from megatron.layout.grid import Grid
from megatron.layout.options import LayoutOptions
from megatron.loop.options import OptimizerOptions
from megatron.loop.setup import ModelRecipe, build_chunks, compute_dtype, make_trainable
from megatron.loop.step import LossRule, train_step
from megatron.modeling.options import ModelOptions
from megatron.records import visibility
from megatron.records.batch import Batch, Visibility

LEARNING_RATE, CLIP = 1e-4, 1.0


@dataclass(frozen=True, kw_only=True)
class StepShape:
    """A GPT-2-like model and the batch of one step."""

    name: str
    hidden_size: int
    num_layers: int
    num_heads: int
    seq_length: int
    vocabulary_size: int
    batch_size: int

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.seq_length * self.batch_size

    @property
    def model(self) -> ModelOptions:
        """The shape as our options; its vocabulary needs no padding."""
        return ModelOptions(
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            num_attention_heads=self.num_heads,
            make_vocab_size_divisible_by=self.vocabulary_size,
        )

    @property
    def shape(self) -> ModelShape:
        """The model and its rows, from which the figures follow."""
        return ModelShape(
            architecture=CausalDecoder(),
            model=self.model,
            vocabulary_size=self.vocabulary_size,
            max_positions=self.seq_length,
            lengths=(self.seq_length, 0),
        )

    @property
    def flops_per_token(self) -> float:
        """Model FLOPs of a training step for each token, causal attention counted once."""
        return flops_per_token(self.shape, causal_pairs(self.seq_length))

    @property
    def parameters(self) -> int:
        """Weights of the model."""
        return count_parameters(self.shape).total


def random_tokens(shape: StepShape, device: Device) -> tuple[Tensor, Tensor]:
    """Inputs and labels, int64 [b, s], the same ones at every call."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, shape.vocabulary_size, (shape.batch_size, shape.seq_length + 1), generator=generator)
    return device.put(rows[:, :-1].contiguous()), device.put(rows[:, 1:].contiguous())


def our_step(shape: StepShape, device: Device, grid: Grid, dtype: torch.dtype) -> Callable[[], float]:
    """A function that trains one step as `pretrain_gpt.py` does and gives its loss."""
    recipe = ModelRecipe(
        architecture=CausalDecoder(),
        model=shape.model,
        vocabulary_size=shape.vocabulary_size,
        max_positions=shape.seq_length,
        seed=1,
    )
    return step_of(recipe, example_batch(shape, device), device, grid, dtype)


def step_of(recipe: ModelRecipe, batch: Batch, device: Device, grid: Grid, dtype: torch.dtype) -> Callable[[], float]:
    """A function that trains a fresh model of any architecture on one batch, again and again, and gives its loss."""
    optimizer = OptimizerOptions(lr=LEARNING_RATE, clip_grad=CLIP, bf16=dtype == torch.bfloat16)
    assert compute_dtype(optimizer) == dtype
    layout = LayoutOptions()
    _, attend = choose_backend("auto", is_cuda=device.is_cuda, is_causal=recipe.architecture.is_causal)
    config, chunks = build_chunks(recipe, layout, grid, device, dtype, attend)
    model = make_trainable(config, chunks, layout, optimizer)
    rule = LossRule(architecture=recipe.architecture, vocabulary_size=recipe.vocabulary_size)

    def step() -> float:
        result = train_step(model, [batch], rule, grid, device, dropout_seed=0, learning_rate=LEARNING_RATE)
        total, count = result.losses["lm loss"]
        return total / count

    return step


def example_batch(shape: StepShape, device: Device) -> Batch:
    """`random_tokens` as the trainer's batch, plainly causal."""
    tokens, labels = random_tokens(shape, device)
    intervals = torch.from_numpy(visibility.causal(shape.seq_length)).repeat(shape.batch_size, 1, 1)
    positions = torch.arange(shape.seq_length).repeat(shape.batch_size, 1)
    return Batch(
        tokens=tokens,
        labels=labels,
        loss_mask=device.put(torch.ones(shape.batch_size, shape.seq_length)),
        position_ids=device.put(positions),
        visibility=Visibility(device.put(intervals), shape.seq_length, is_causal=True),
    )


def hugging_face_step(
    shape: StepShape,
    device: Device,
    dtype: torch.dtype,
    *,
    attention: str = "sdpa",
    autocast: bool = False,
    compiled: bool = False,
) -> Callable[[], float]:
    """The same step with transformers' GPT2LMHeadModel and torch's fused AdamW.

    With `autocast` weights, gradients and moments are float32 and only the products are in `dtype`, as its Trainer does
    it; without, everything is in `dtype`, which saves memory traffic that ours pays for float32 master weights.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=shape.vocabulary_size,
        n_positions=shape.seq_length,
        n_embd=shape.hidden_size,
        n_layer=shape.num_layers,
        n_head=shape.num_heads,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation=attention,
    )
    weights_dtype = torch.float32 if autocast else dtype
    model = GPT2LMHeadModel(config).to(device=device.torch_device, dtype=weights_dtype).train()
    parameters = list(model.parameters())
    assert sum(p.numel() for p in parameters) == shape.parameters, "the peer has another shape"
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    forward = torch.compile(model) if compiled else model
    tokens, _ = random_tokens(shape, device)  # transformers shifts the labels itself
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    if autocast:
        context = lambda: torch.autocast(device.torch_device.type, dtype)  # noqa: E731

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with context():
            loss = forward(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return float(loss.detach())

    return step


def interleave(
    steps: dict[str, Callable[[], float]], device: Device, *, rounds: int, warm_up: int
) -> dict[str, list[float]]:
    """Seconds of every step, taking turns, so that a busy machine hits all alike. The first `warm_up` are left out."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(warm_up + rounds):
        for name, step in steps.items():
            started = device.clock()
            loss = step()
            if not 0.0 < loss < 100.0:
                raise RuntimeError(f"{name}: the loss is {loss}; a step that does not train is no measurement")
            if number >= warm_up:
                seconds[name].append(device.clock() - started)
    return seconds


def median_ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """How many times as fast we are: the median over rounds of peer / ours, each round measured side by side."""
    ratios = sorted(theirs / own for own, theirs in zip(ours, peer, strict=True))
    middle = len(ratios) // 2
    return ratios[middle] if len(ratios) % 2 else (ratios[middle - 1] + ratios[middle]) / 2
