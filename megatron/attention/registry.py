"""The attention backends by name, and which of them `auto` takes."""

from __future__ import annotations

import logging
from typing import Protocol

from torch import Tensor

from megatron.basics.registry import Registry
from megatron.device.native import native_ops_available
from megatron.records.batch import Visibility

logger = logging.getLogger(__name__)

ATTENTION_BACKENDS = Registry(
    "--attention-backend",
    {
        "fused_softmax": "megatron.attention.fused_softmax:attend",
        "sdpa": "megatron.attention.sdpa:attend",
    },
)


class AttentionBackend(Protocol):
    """What every backend is: softmax(scale q k^T + bias) v over the keys that each query sees."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        visibility: Visibility,
        *,
        scale: float,
        distance_bias: Tensor | None,
        dropout_p: float = 0.0,
    ) -> Tensor:
        """query [b, h, s_q, d], key and value [b, g, s_k, d] with g dividing h -> [b, h, s_q, d], of the same dtype.

        Inputs may be permuted views. distance_bias: float32 [h, s_q + s_k - 1], entry (k - q) + (s_q - 1) is added to
        the scaled score of query q and key k. A query that sees no key gets zeros and gives zero gradients.
        """


def choose_backend(
    name: str,
    *,
    is_cuda: bool = False,
    is_causal: bool = True,
    has_bias: bool = False,
) -> tuple[str, AttentionBackend]:
    """The backend of `--attention-backend name` as (name, function); for `auto` the fastest one for the job.

    is_cuda: where the model runs. is_causal: every mask is plainly causal, so that a library may take its causal
    kernel. Raises UserError for an unknown name.
    """
    if name == "auto":
        name, reason = _fastest(is_cuda, is_causal and not has_bias)
        logger.info("attention backend: %s (%s)", name, reason)
    return name, ATTENTION_BACKENDS[name]


def _fastest(is_cuda: bool, is_plainly_causal: bool) -> tuple[str, str]:
    """Name and reason. On CPU the order is that of `benchmarks/fused_softmax.py --section attention`."""
    if is_cuda and is_plainly_causal:
        return "sdpa", "plain causal attention has library kernels that never write the scores"
    if not native_ops_available():
        return "sdpa", "the native attention ops are not built"
    return "fused_softmax", "it reads visible keys only and needs no dense mask or bias"
