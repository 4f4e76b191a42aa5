"""Batches, optimisation, precision, validation and what is logged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from megatron.basics.option import Options, option

OPTIMIZERS = ("adam", "adafactor")
DECAY_STYLES = ("constant", "linear", "cosine", "inverse-square-root", "WSD")


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Options):
    """How many samples a step takes, and how many steps."""

    group: ClassVar[str] = "batch"

    micro_batch_size: int = option(1, "Rows that go through the model at once on each data-parallel rank.", minimum=1)
    global_batch_size: int | None = option(
        None, "Rows of a whole step. Default: micro batch x data-parallel size.", minimum=1
    )
    rampup_batch_size: list[int] = option(
        [], "START INCREMENT SAMPLES: grow the global batch from START by INCREMENT evenly over SAMPLES.", metavar="N"
    )
    train_iters: int = option(1000, "Steps of the whole run.", minimum=1)
    seed: int = option(1234, "Seed of weights, data order and dropout.", minimum=0)

    def rules(self) -> Iterator[str]:
        """The ramp must reach the global batch in whole increments."""
        if not self.rampup_batch_size:
            return
        if len(self.rampup_batch_size) != 3 or min(self.rampup_batch_size) < 1:
            yield "--rampup-batch-size takes three whole numbers above 0: START INCREMENT SAMPLES."
            return
        start, increment, _ = self.rampup_batch_size
        if self.global_batch_size is None:
            yield "--rampup-batch-size needs --global-batch-size."
        elif start >= self.global_batch_size or (self.global_batch_size - start) % increment:
            yield (
                f"--rampup-batch-size {start} {increment} does not reach --global-batch-size {self.global_batch_size} "
                "in whole increments."
            )


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions(Options):
    """Optimizer, learning-rate schedule, precision and loss."""

    group: ClassVar[str] = "optimisation"

    optimizer: str = option(
        "adam",
        "adam: AdamW. adafactor: T5's, whose rate is a share of each matrix's size; T5's --lr is 0.01.",
        choices=OPTIMIZERS,
    )
    lr: float = option(3e-4, "Peak learning rate.", above=0.0)
    min_lr: float = option(0.0, "Learning rate at the end of the decay.", minimum=0.0)
    lr_decay_style: str = option("cosine", "Shape of the decay.", choices=DECAY_STYLES)
    lr_decay_iters: int | None = option(None, "Step at which the decay ends. Default: --train-iters.", minimum=1)
    lr_warmup_iters: int = option(0, "Steps of linear warm-up from 0.", minimum=0)
    lr_hold_iters: int = option(
        0, "With inverse-square-root: steps at --lr before it falls; T5 has 10000 and no warm-up.", minimum=0
    )
    lr_wsd_decay_iters: int | None = option(None, "With WSD: steps of the final decay.", minimum=1)
    lr_wsd_decay_style: str = option(
        "linear", "With WSD: shape of the final decay.", choices=("linear", "cosine", "exponential", "minus_sqrt")
    )
    weight_decay: float = option(0.1, "Decoupled weight decay; never on biases, norms and other vectors.", minimum=0.0)
    no_weight_decay_on_embeddings: bool = option(
        False, "Also leave embedding tables and the output layer out of weight decay."
    )
    adam_beta1: float = option(0.9, "Decay of the first moment.", minimum=0.0, maximum=0.999999)
    adam_beta2: float = option(0.95, "Decay of the second moment.", minimum=0.0, maximum=0.999999)
    adam_eps: float = option(1e-8, "Added to the root of the second moment.", above=0.0)
    clip_grad: float | None = option(
        None, "Largest gradient norm; 0 does not clip. Default: 1; 0 with adafactor.", minimum=0.0
    )
    z_loss_coeff: float = option(0.0, "Weight of the squared log partition function (PaLM, section 5).", minimum=0.0)
    bf16: bool = option(False, "Compute in bfloat16 with float32 master weights.")
    fp16: bool = option(False, "Compute in float16 with float32 master weights and a dynamic loss scale.")
    initial_loss_scale: float = option(2.0**16, "With fp16: first loss scale.", minimum=1.0)
    min_loss_scale: float = option(1.0, "With fp16: smallest loss scale.", minimum=1.0)
    loss_scale_window: int = option(1000, "With fp16: good steps after which the scale doubles.", minimum=1)
    hysteresis: int = option(2, "With fp16: overflows before the scale halves.", minimum=1)

    @property
    def shards_state(self) -> bool:
        """Whether data-parallel ranks divide the state of the optimizer among them."""
        return self.optimizer == "adam"

    @property
    def largest_gradient_norm(self) -> float:
        """Gradients of a larger norm are scaled down to it; 0 for none."""
        if self.clip_grad is not None:
            return self.clip_grad
        return 1.0 if self.optimizer == "adam" else 0.0

    def rules(self) -> Iterator[str]:
        """Which of these settings exclude or need each other."""
        if self.optimizer != "adam":
            of_adam = ("weight_decay", "no_weight_decay_on_embeddings", "adam_beta1", "adam_beta2", "adam_eps")
            yield from self.without_effect(of_adam, f"with --optimizer {self.optimizer}")
        if 0 < self.lr_hold_iters <= self.lr_warmup_iters:
            yield (
                f"--lr-hold-iters {self.lr_hold_iters} ends before --lr-warmup-iters {self.lr_warmup_iters}; both "
                "count from the first step: use a larger one, or leave it out."
            )
        if self.lr_decay_style != "inverse-square-root":
            yield from self.without_effect(("lr_hold_iters",), "without --lr-decay-style inverse-square-root")
        if self.bf16 and self.fp16:
            yield "--bf16 and --fp16 exclude each other; keep one."
        if self.min_lr > self.lr:
            yield f"--min-lr {self.min_lr} is above --lr {self.lr}; use {self.lr} or less."
        if self.lr_decay_style == "WSD" and self.lr_wsd_decay_iters is None:
            yield "--lr-decay-style WSD needs --lr-wsd-decay-iters."
        if self.lr_wsd_decay_iters is not None and self.lr_decay_style != "WSD":
            yield "--lr-wsd-decay-iters needs --lr-decay-style WSD."
        if self.min_loss_scale > self.initial_loss_scale:
            yield f"--min-loss-scale {self.min_loss_scale} is above --initial-loss-scale {self.initial_loss_scale}."
        if not self.fp16:
            names = ("initial_loss_scale", "min_loss_scale", "loss_scale_window", "hysteresis")
            yield from self.without_effect(names, "without --fp16")
        if self.lr_decay_style == "constant":
            yield from self.without_effect(("min_lr", "lr_decay_iters"), "with --lr-decay-style constant")
        if self.lr_decay_style != "WSD":
            yield from self.without_effect(("lr_wsd_decay_style",), "without --lr-decay-style WSD")
        if self.weight_decay == 0:
            yield from self.without_effect(("no_weight_decay_on_embeddings",), "with --weight-decay 0")


@dataclass(frozen=True, kw_only=True)
class LoggingOptions(Options):
    """Validation, log lines and when to stop."""

    group: ClassVar[str] = "validation and logging"

    eval_interval: int | None = option(None, "Steps between validations. Default: only at the end.", minimum=1)
    eval_iters: int = option(
        10, "Global batches of a validation, always the same ones; 0 does not validate.", minimum=0
    )
    log_interval: int = option(10, "Steps between log lines; metrics.jsonl has every step.", minimum=1)
    tensorboard_dir: str | None = option(None, "TensorBoard folder. Default: tensorboard/ in the --save folder.")
    wandb_project: str | None = option(None, "Also log to this Weights & Biases project; needs the wandb package.")
    peak_tflops: float | None = option(
        None, "Peak TFLOP/s of one device, for MFU. Default: known GPUs; none on CPU.", above=0.0
    )
    profile_steps: list[int] = option(
        [], "FIRST LAST: write a torch profiler trace of these steps into the --save folder.", metavar="STEP"
    )
    max_nonfinite_steps: int = option(
        10, "Stop after this many steps in a row with a loss or gradient that is not finite.", minimum=1
    )
    exit_interval: int | None = option(None, "Save and stop at a step that is a multiple of this.", minimum=1)
    exit_duration_in_mins: float | None = option(None, "Save and stop after so many minutes.", above=0.0)

    def rules(self) -> Iterator[str]:
        """A profile needs a range."""
        if self.profile_steps and (
            len(self.profile_steps) != 2 or not 1 <= self.profile_steps[0] <= self.profile_steps[1]
        ):
            yield "--profile-steps takes two steps, FIRST LAST, with 1 <= FIRST <= LAST."
