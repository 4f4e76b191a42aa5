"""The optimizer of a run, from its section."""

from __future__ import annotations

from functools import partial

from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.grad_scaler import DynamicGradScaler
from megatron.core.optimizer.optimizer import ChainedOptimizer
from megatron.core.optimizer.optimizer_config import ParamKey, ParamPredicate
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from megatron.layout import grid as grids
from megatron.layout.initial_weights import global_names, shard_dim
from megatron.layout.options import LayoutOptions
from megatron.loop.adafactor import Adafactor, Placed
from megatron.loop.options import OptimizerOptions
from megatron.loop.replicated_optimizer import ReplicatedOptimizer


def build_optimizer(
    config: TransformerConfig, chunks: list[DistributedDataParallel], layout: LayoutOptions, options: OptimizerOptions
) -> ChainedOptimizer:
    """The optimizer of this rank's chunks, as megatron-core's chain of one; its moments exist from the start."""
    core = _core_config(config, layout, options)
    if options.optimizer == "adafactor":
        return ChainedOptimizer([_adafactor(core, chunks)])
    chained = get_megatron_optimizer(core, chunks, config_overrides=_without_weight_decay(options))
    (inner,) = chained.chained_optimizers
    # So that a run can be saved before its first applied step.
    inner.init_state_fn(inner.optimizer, inner.config)
    return chained


def _core_config(config: TransformerConfig, layout: LayoutOptions, options: OptimizerOptions) -> OptimizerConfig:
    return OptimizerConfig(
        optimizer=options.optimizer,
        lr=options.lr,
        min_lr=options.min_lr,
        weight_decay=options.weight_decay,
        adam_beta1=options.adam_beta1,
        adam_beta2=options.adam_beta2,
        adam_eps=options.adam_eps,
        clip_grad=options.largest_gradient_norm,
        bf16=options.bf16,
        fp16=options.fp16,
        params_dtype=config.params_dtype,
        initial_loss_scale=options.initial_loss_scale,
        min_loss_scale=options.min_loss_scale,
        loss_scale_window=options.loss_scale_window,
        hysteresis=options.hysteresis,
        use_distributed_optimizer=options.shards_state,
        overlap_param_gather=layout.overlap_param_gather,
    )


def _without_weight_decay(options: OptimizerOptions) -> dict[ParamKey, dict[str, float]]:
    """Vectors (biases, norm weights) never decay, embeddings only where they are not excluded."""

    def excluded(parameter: nn.Parameter) -> bool:
        is_embedding = getattr(parameter, "is_embedding_or_output_parameter", False)
        return parameter.dim() == 1 or (options.no_weight_decay_on_embeddings and is_embedding)

    return {ParamKey(predicate=ParamPredicate(name="without_weight_decay", fn=excluded)): {"wd_mult": 0.0}}


def _adafactor(core: OptimizerConfig, chunks: list[DistributedDataParallel]) -> ReplicatedOptimizer:
    grid = grids.current()
    named = [pair for chunk in chunks for pair in global_names(chunk.module) if pair[1].requires_grad]
    scaler = None
    if core.fp16:
        scaler = DynamicGradScaler(
            initial_scale=core.initial_loss_scale,
            min_scale=core.min_loss_scale,
            growth_factor=2.0,
            backoff_factor=0.5,
            growth_interval=int(core.loss_scale_window),
            hysteresis=core.hysteresis,
        )
    build = partial(_adafactor_of, named, core.lr, grid.tensor_group, grid.tensor_size)
    return ReplicatedOptimizer([parameter for _, parameter in named], build, core, scaler)


def _adafactor_of(
    named: list[tuple[str, nn.Parameter]], lr: float, group: ProcessGroup, tensor_size: int, masters: list[Tensor]
) -> Adafactor:
    placed = []
    for (name, parameter), master in zip(named, masters, strict=True):
        cut = shard_dim(parameter)
        columns = parameter.shape[1] if parameter.dim() == 2 else 1
        placed.append(
            Placed(
                weight=master,
                blocks=parameter.row_blocks,  # type: ignore[attr-defined]
                cut=cut,
                columns=columns * (tensor_size if cut == 1 else 1),
                can_factor=not name.endswith("relative_bias.weight"),
            )
        )
    return Adafactor(placed, lr, group)
