"""Our options as megatron-core's TransformerConfig."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from megatron.core.transformer.enums import AttnBackend
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from megatron.device.device import Device
from megatron.layout.options import LayoutOptions
from megatron.modeling.options import ModelOptions

gelu_tanh = functools.partial(F.gelu, approximate="tanh")
ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": gelu_tanh,
}


def transformer_config(
    model: ModelOptions, layout: LayoutOptions, device: Device, dtype: torch.dtype, layers_of_chunks: Sequence[int]
) -> TransformerConfig:
    """The one configuration object that megatron-core's layers, schedules and buffers read.

    Losses are summed over target tokens and divided once by their count over the whole step
    (`calculate_per_token_loss`), so that the result does not depend on the layout. Fusions that are torch.compile
    functions of megatron-core stay off: ours take their place.
    """
    interleaved = layout.num_virtual_stages_per_pipeline_rank is not None
    return TransformerConfig(
        num_layers=sum(layers_of_chunks),
        hidden_size=model.hidden_size,
        ffn_hidden_size=model.ffn_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.query_groups,
        kv_channels=model.head_size,
        hidden_dropout=model.hidden_dropout,
        attention_dropout=model.attention_dropout,
        normalization=model.normalization,
        layernorm_epsilon=model.norm_epsilon,
        layernorm_zero_centered_gamma=model.apply_layernorm_1p,
        qk_layernorm=model.qk_layernorm,
        softmax_scale=model.softmax_scale,
        activation_func=ACTIVATION_FUNCTIONS[model.activation],
        gated_linear_unit=model.is_gated,
        add_bias_linear=not model.disable_bias_linear,
        add_qkv_bias=model.add_qkv_bias,
        init_method_std=model.init_method_std,
        perform_initialization=False,  # layout/initial_weights.py draws every weight
        use_cpu_initialization=not device.is_cuda,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        autocast_dtype=dtype,
        tensor_model_parallel_size=layout.tensor_model_parallel_size,
        pipeline_model_parallel_size=layout.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=layout.num_virtual_stages_per_pipeline_rank,
        pipeline_model_parallel_layout=_stages_for_core(layers_of_chunks) if len(layers_of_chunks) > 1 else None,
        sequence_parallel=layout.sequence_parallel,
        recompute_granularity=layout.recompute_granularity,
        recompute_method=layout.recompute_method if layout.recompute_granularity == "full" else None,
        recompute_num_layers=layout.recompute_num_layers if layout.recompute_granularity == "full" else None,
        # gloo pairs batched messages to one peer in posting order, and an interleaved pipeline of two ranks then
        # swaps activations with gradients without an error.
        batch_p2p_comm=not interleaved,
        overlap_p2p_comm=interleaved,
        attention_backend=AttnBackend.local,
        calculate_per_token_loss=True,
        gradient_accumulation_fusion=device.is_cuda and apex_accumulates_gradients(),
        bias_dropout_fusion=False,
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        apply_rope_fusion=False,
    )


def _stages_for_core(layers_of_chunks: Sequence[int]) -> list[list[str]]:
    """megatron-core's description of a pipeline. It has one word for layers of any kind, "decoder"."""
    stages = [["decoder"] * count for count in layers_of_chunks]
    stages[0].insert(0, "embedding")
    stages[-1].append("loss")
    return stages


def apex_accumulates_gradients() -> bool:
    """Whether NVIDIA Apex's extension that adds weight gradients inside the matrix product is installed."""
    return importlib.util.find_spec("fused_weight_gradient_mlp_cuda") is not None
