"""The causal decoder (CD): every position sees itself and what came before. Wang et al. 2022, section 2.1."""

from __future__ import annotations

from typing import ClassVar

from megatron.architectures.decoder_only import DecoderOnly


class CausalDecoder(DecoderOnly):
    """Inputs are read from left to right like everything else."""

    name: ClassVar[str] = "causal_decoder"
    is_causal: ClassVar[bool] = True
