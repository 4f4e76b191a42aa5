"""The non-causal or prefix decoder (ND): inputs see each other. Wang et al. 2022, section 2.1.

It has the causal decoder's weights, T5's unidirectional distance buckets included: a key that lies ahead of its query,
as only inputs see them, falls into bucket 0. So a checkpoint of one goes on as the other.
"""

from __future__ import annotations

from typing import ClassVar

from megatron.architectures.decoder_only import DecoderOnly


class PrefixDecoder(DecoderOnly):
    """Inputs are read both ways."""

    name: ClassVar[str] = "prefix_decoder"
    is_causal: ClassVar[bool] = False
