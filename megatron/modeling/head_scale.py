"""The scale of the states that the vocabulary head reads."""

from __future__ import annotations

from torch import Tensor

from megatron.modeling.options import ModelOptions


def scaled_for_head(hidden: Tensor, options: ModelOptions) -> Tensor:
    """[s, b, h], with --scale-logits over sqrt(h): then logits have the size of the hidden states, not h times it.

    T5 1.0 does so because its embedding, which is the head as well, starts with a standard deviation of 1 (Raffel et
    al. 2020; transformers' T5), and so do the decoders of Wang et al. 2022.
    """
    return hidden * options.hidden_size**-0.5 if options.scale_logits else hidden
