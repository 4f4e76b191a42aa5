"""The tables that a stream of tokens enters by: words, and learned positions where the model has them."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from megatron.modeling.options import ModelOptions


def build_embedding(
    config: TransformerConfig,
    options: ModelOptions,
    padded_vocabulary_size: int,
    max_positions: int,
    *,
    scatters: bool = True,
) -> LanguageModelEmbedding:
    """megatron-core's embedding, (tokens [b, s], positions [b, s]) -> [s, b, h].

    scatters: under sequence parallelism it gives each rank its part of the sequence. With --scale-embeddings words are
    multiplied by sqrt(h) before positions are added (Vaswani et al. 2017, section 3.4; Gemma).
    """
    learns_positions = options.position_embedding_type == "learned_absolute"
    embedding = LanguageModelEmbedding(
        config,
        padded_vocabulary_size,
        max_positions,
        position_embedding_type="learned_absolute" if learns_positions else "none",
        scatter_to_sequence_parallel=scatters,
    )
    if learns_positions:
        # megatron-core marks the word table alone, and the optimizer asks for this mark.
        embedding.position_embeddings.weight.is_embedding_or_output_parameter = True
    if options.scale_embeddings:
        # A hook, because the table is megatron-core's own to make, and a tied head needs it as it is.
        embedding.word_embeddings.register_forward_hook(_times_root_of_width)
    return embedding


def _times_root_of_width(table: nn.Module, inputs: Any, words: Tensor) -> Tensor:
    """[.., h] words by sqrt(h), which is rounded to their dtype first, as in transformers' Gemma."""
    return words * torch.tensor(words.shape[-1] ** 0.5, dtype=words.dtype).item()
