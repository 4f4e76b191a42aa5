"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from megatron.loop.options import OptimizerOptions

# Share of the way from --min-lr to --lr that is left after a share `done` of the decay.
FINAL_DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "exponential": lambda done: 2.0 * 0.5**done - 1.0,
    "minus_sqrt": lambda done: 1.0 - math.sqrt(done),
}


def lr_at(options: OptimizerOptions, iteration: int, train_iters: int) -> float:
    """Learning rate of step `iteration`, counted from 1.

    Linear warm-up to --lr at step --lr-warmup-iters, then the decay to --min-lr at step --lr-decay-iters (default:
    `train_iters`), and --min-lr from there on. The shapes are Megatron's: linear, cosine, inverse square root of the
    step (Vaswani et al. 2017, section 5.3; T5 holds its rate for 10,000 steps first, so that --lr 0.01 makes it
    1 / sqrt(max(step, 10000))), and warm-up, stable, decay (WSD; Hu et al. 2024, section 4). Megatron
    spends its first step on a rate of 0; here step 1 has what Megatron's log shows for it.
    """
    warmup, end = options.lr_warmup_iters, options.lr_decay_iters or train_iters
    if iteration <= warmup:
        return options.lr * iteration / warmup
    if options.lr_decay_style == "constant":
        return options.lr
    if iteration > end:
        return options.min_lr
    if options.lr_decay_style == "inverse-square-root":
        start = max(warmup, options.lr_hold_iters, 1)
        return max(options.min_lr, options.lr * math.sqrt(start / max(iteration, start)))
    if options.lr_decay_style == "WSD":
        decay = options.lr_wsd_decay_iters or 1
        left = FINAL_DECAYS[options.lr_wsd_decay_style](max(0, iteration - (end - decay)) / decay)
    else:
        left = FINAL_DECAYS[options.lr_decay_style]((iteration - warmup) / (end - warmup))
    return options.min_lr + left * (options.lr - options.min_lr)
