"""The shape of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from megatron.basics.divisors import nearest_divisor
from megatron.basics.option import Options, option

GATED_ACTIVATIONS = ("swiglu", "geglu", "geglu_tanh")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", *GATED_ACTIVATIONS)
POSITION_EMBEDDINGS = ("learned_absolute", "rope", "alibi", "relative", "none")
POSITION_SETTINGS = {
    "rope": ("rotary_base", "rotary_percent"),
    "relative": ("relative_attention_num_buckets", "relative_attention_max_distance", "relative_bias_per_layer"),
}


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """Sizes and variants of a Transformer stack."""

    group: ClassVar[str] = "model"

    num_layers: int = option(12, "Transformer layers.", minimum=1)
    encoder_num_layers: int | None = option(
        None, "Layers of an encoder-decoder's encoder. Default: --num-layers.", minimum=1
    )
    decoder_num_layers: int | None = option(
        None, "Layers of an encoder-decoder's decoder. Default: --num-layers.", minimum=1
    )
    hidden_size: int = option(768, "Width of the residual stream.", minimum=1)
    ffn_hidden_size: int | None = option(
        None, "Width of the feed-forward layer. Default: 4 x hidden size; for gated activations 8/3 of it.", minimum=1
    )
    num_attention_heads: int = option(12, "Query heads.", minimum=1)
    num_query_groups: int | None = option(
        None, "Key and value heads, each shared by a group of query heads. Default: as many as query heads.", minimum=1
    )
    kv_channels: int | None = option(None, "Width of a head. Default: hidden size / heads.", minimum=1)
    position_embedding_type: str = option(
        "learned_absolute", "How positions enter; relative: T5's buckets.", choices=POSITION_EMBEDDINGS
    )
    max_position_embeddings: int | None = option(
        None, "Positions the model is for; the rows of a learned table. Default: --seq-length.", minimum=1
    )
    rotary_base: int = option(10000, "Base of the rotary frequencies.", minimum=1)
    rotary_percent: float = option(1.0, "Share of each head that is rotated.", above=0.0, maximum=1.0)
    # An encoder has half of them for each direction, and half of these for distances of their own.
    relative_attention_num_buckets: int = option(32, "Buckets of the T5 relative bias.", minimum=4)
    relative_attention_max_distance: int = option(128, "Distance in tokens at which buckets end.", minimum=2)
    relative_bias_per_layer: bool = option(
        False,
        "Every layer of an encoder-decoder has a table of the T5 relative bias, as in UMT5; T5's stacks have one.",
    )
    normalization: str = option("LayerNorm", "Normalisation layer.", choices=("LayerNorm", "RMSNorm"))
    norm_epsilon: float = option(1e-5, "Added to the variance in norms.", above=0.0)
    apply_layernorm_1p: bool = option(False, "Norms multiply by 1 + weight and begin at a weight of 0, as Gemma's do.")
    qk_layernorm: bool = option(False, "Normalise queries and keys per head, in self and cross attention.")
    softmax_scale: float | None = option(
        None, "Factor of attention scores. Default: 1 / sqrt(head width); T5 has 1.", above=0.0
    )
    scale_embeddings: bool = option(
        False,
        "Multiply word embeddings by the square root of the hidden size, as Gemma does; a tied head reads them bare.",
    )
    scale_logits: bool = option(
        False, "Divide the logits by the square root of the hidden size, as T5 does with tied embeddings."
    )
    activation: str = option("gelu", "Activation; swiglu and geglu are gated.", choices=ACTIVATIONS)
    disable_bias_linear: bool = option(False, "No biases in linear layers.")
    add_qkv_bias: bool = option(False, "Biases in the query, key and value projection even with --disable-bias-linear.")
    untie_embeddings_and_output_weights: bool = option(False, "Give the output layer its own weights.")
    make_vocab_size_divisible_by: int = option(
        128, "Pad the embedding to a multiple of this. Padding never changes the loss.", minimum=1
    )
    init_method: str = option(
        "normal",
        "Widths of initial weights: normal, GPT-2's around --init-method-std; t5, each matrix by its inputs.",
        choices=("normal", "t5"),
    )
    init_method_std: float = option(0.02, "Standard deviation of the initial weights.", above=0.0)
    hidden_dropout: float = option(
        0.0, "Dropout after embeddings, attention and feed-forward.", minimum=0, maximum=0.99
    )
    attention_dropout: float = option(0.0, "Dropout of attention probabilities.", minimum=0, maximum=0.99)
    attention_backend: str = option(
        "auto",
        "Attention implementation; auto picks the fastest that can do the job.",
        choices=("auto", "fused_softmax", "sdpa"),
    )

    @property
    def encoder_layers(self) -> int:
        """Layers of the encoder of an encoder-decoder."""
        return self.encoder_num_layers or self.num_layers

    @property
    def decoder_layers(self) -> int:
        """Layers of the decoder of an encoder-decoder."""
        return self.decoder_num_layers or self.num_layers

    @property
    def query_groups(self) -> int:
        """Key and value heads."""
        return self.num_query_groups or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.kv_channels or self.hidden_size // self.num_attention_heads

    @property
    def shares_bias_tables(self) -> bool:
        """Whether each stack of an encoder-decoder has one trained table of biases, which its layers share."""
        return self.position_embedding_type == "relative" and not self.relative_bias_per_layer

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward layer multiplies two projections."""
        return self.activation in GATED_ACTIVATIONS

    @property
    def ffn_size(self) -> int:
        """Width of the feed-forward layer; for gated ones rounded down to a multiple of 64, as Megatron does."""
        if self.ffn_hidden_size:
            return self.ffn_hidden_size
        return max(64, self.hidden_size * 8 // 3 // 64 * 64) if self.is_gated else 4 * self.hidden_size

    def padded_vocabulary_size(self, vocabulary_size: int) -> int:
        """Rows of the embedding; does not depend on the layout, so that checkpoints do not either."""
        multiple = self.make_vocab_size_divisible_by
        return -(-vocabulary_size // multiple) * multiple

    def rules(self) -> Iterator[str]:
        """Widths and heads must fit each other."""
        if self.kv_channels is None and self.hidden_size % self.num_attention_heads:
            yield (
                f"--hidden-size {self.hidden_size} is not divisible by --num-attention-heads "
                f"{self.num_attention_heads}; use {nearest_divisor(self.hidden_size, self.num_attention_heads)} heads "
                "or set --kv-channels."
            )
        if self.num_attention_heads % self.query_groups:
            yield (
                f"--num-attention-heads {self.num_attention_heads} is not divisible by --num-query-groups "
                f"{self.query_groups}; use {nearest_divisor(self.num_attention_heads, self.query_groups)} groups."
            )
        if self.position_embedding_type == "rope" and int(self.head_size * self.rotary_percent) % 2:
            yield (
                f"--rotary-percent {self.rotary_percent} of a head of {self.head_size} is an odd width; "
                "rotary positions need an even one."
            )
        if self.init_method != "normal":
            yield from self.without_effect(("init_method_std",), f"with --init-method {self.init_method}")
        for position_type, names in POSITION_SETTINGS.items():
            if self.position_embedding_type != position_type:
                yield from self.without_effect(names, f"without --position-embedding-type {position_type}")
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets // 2:
            yield (
                f"--relative-attention-max-distance {self.relative_attention_max_distance} must be more than half of "
                f"--relative-attention-num-buckets {self.relative_attention_num_buckets}."
            )
