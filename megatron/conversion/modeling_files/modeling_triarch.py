"""Causal and prefix decoders of Triarch for transformers.

This file travels inside exports and needs torch and transformers alone. Load a folder with

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

A prefix decoder reads a prefix both ways: each of its tokens sees all of it. `forward` is told where the prefix ends,
by `prefix_lengths` or `token_type_ids`; without either it reads from left to right, which is how programs score that
know of no prefix. `generate` takes the whole prompt as the prefix where the config says bidirectional_prompts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

gelu_tanh = partial(F.gelu, approximate="tanh")
GATED: dict[str, Any] = {"swiglu": F.silu, "geglu": F.gelu, "geglu_tanh": gelu_tanh}
ACTIVATIONS: dict[str, Any] = {"gelu": F.gelu, "gelu_tanh": gelu_tanh, "relu": F.relu, **GATED}


class TriarchConfig(PretrainedConfig):
    """Sizes and variants of a decoder.

    decoder_type: causal_decoder or prefix_decoder. position_embedding_type: learned_absolute, rope, alibi, relative
    (T5's buckets, a table in each layer) or none. normalization: LayerNorm or RMSNorm, also of queries and keys with
    qk_layernorm; apply_layernorm_1p: by 1 + weight. activation: gelu, gelu_tanh, relu, or gated: swiglu, geglu,
    geglu_tanh. softmax_scale: of scores, None for 1 / sqrt(head_dim). scale_embeddings, scale_logits: words times and
    logits over sqrt(hidden_size). bidirectional_prompts: `generate` takes the prompt as the prefix.
    begins_with_start_token: texts of training began with bos_token_id.
    """

    model_type = "triarch_decoder"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    vocab_size: int = 32000
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_key_value_heads: int = 12
    head_dim: int = 64
    max_position_embeddings: int = 2048
    decoder_type: str = "causal_decoder"
    position_embedding_type: str = "learned_absolute"
    rotary_base: int = 10000
    rotary_percent: float = 1.0
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    normalization: str = "LayerNorm"
    norm_epsilon: float = 1e-5
    apply_layernorm_1p: bool = False
    qk_layernorm: bool = False
    softmax_scale: float | None = None
    scale_embeddings: bool = False
    scale_logits: bool = False
    activation: str = "gelu"
    disable_bias_linear: bool = False
    add_qkv_bias: bool = False
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = True
    bidirectional_prompts: bool = False
    begins_with_start_token: bool = False
    use_cache: bool = True


@dataclass(frozen=True)
class Surroundings:
    """What all layers of one forward pass share.

    visible: bool [1 or b, 1, s_q, s_k], where a query sees a key; None for plainly causal attention without a bias.
    distance_bias: [1, heads, s_q, s_k] or [b, ..] of ALiBi. buckets: int64 [1 or b, s_q, s_k] of relative positions.
    rotation: cosines and sines [1 or b, 1, s_q, width / 2] of rotary positions. cache: of keys and values, which grows.
    """

    visible: Tensor | None
    distance_bias: Tensor | None
    buckets: Tensor | None
    rotation: tuple[Tensor, Tensor] | None
    cache: Cache | None


def token_positions(attention_mask: Tensor | None, length: int, device: torch.device) -> Tensor:
    """The number of each token in its text, int64 [1 or b, length], whatever padding stands before it."""
    if attention_mask is None:
        return torch.arange(length, device=device)[None]
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def prefix_members(positions: Tensor, token_type_ids: Tensor | None, prefix_lengths: Tensor | None) -> Tensor | None:
    """bool [b, s], the tokens at `positions` that belong to a prefix, or None; ValueError if it is named twice."""
    if token_type_ids is not None and prefix_lengths is not None:
        raise ValueError("give token_type_ids or prefix_lengths, not both")
    if token_type_ids is not None:
        return token_type_ids.bool()
    return None if prefix_lengths is None else positions < prefix_lengths.to(positions.device)[:, None]


def visible_keys(
    num_queries: int, num_keys: int, in_prefix: Tensor | None, attention_mask: Tensor | None, device: torch.device
) -> Tensor:
    """bool [1 or b, 1, num_queries, num_keys]: keys up to the query's own, and those of the prefix that it belongs to.

    The queries are the last of the tokens that the keys are. in_prefix: bool [b, num_queries]. attention_mask: [b,
    num_keys], zero for padding, which nobody sees. A query that would see nothing sees all, since kernels make NaN of
    an empty row: nobody reads it.
    """
    keys = torch.arange(num_keys, device=device)
    visible = (keys <= keys[num_keys - num_queries :, None])[None, None]
    if in_prefix is not None:
        of_keys = F.pad(in_prefix, (num_keys - num_queries, 0))
        visible = visible | (in_prefix[:, None, :, None] & of_keys[:, None, None, :])
    if attention_mask is not None:
        visible = visible & attention_mask.bool()[:, None, None, :]
    return visible | ~visible.any(-1, keepdim=True)


def alibi_slopes(num_heads: int, device: torch.device) -> Tensor:
    """Positive slopes, float32 [heads] (Press et al. 2022): 2^(-8/n), 2^(-16/n), .. for a power of two.

    Other counts begin as the next lower power of two does and go on with every second slope of the next higher one.
    """
    lower = 2 ** math.floor(math.log2(num_heads))
    slopes = [2.0 ** (-8.0 * (head + 1) / lower) for head in range(lower)]
    slopes += [2.0 ** (-4.0 * (head + 1) / lower) for head in range(0, 2 * lower, 2)]
    return torch.tensor(slopes[:num_heads], dtype=torch.float32, device=device)


def relative_buckets(distance: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """T5's bucket of each distance k - q for decoders, int64 (Raffel et al. 2020); keys ahead are in bucket 0."""
    behind = (-distance).clamp(min=0)
    num_exact = num_buckets // 2
    growth = torch.log(behind.clamp(min=1).float() / num_exact) / math.log(max_distance / num_exact)
    coarse = (num_exact + (growth * (num_buckets - num_exact)).long()).clamp(max=num_buckets - 1)
    return torch.where(behind < num_exact, behind, coarse)


def rotated(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """[b, heads, s, d] with its first dimensions rotated in pairs (i, i + width / 2) (Su et al. 2021)."""
    cosines, sines = (part.to(heads.dtype) for part in rotation)
    half = cosines.shape[-1]
    first, second, kept = heads.split([half, half, heads.shape[-1] - 2 * half], dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines, kept], dim=-1)


class TriarchNorm(nn.Module):
    """LayerNorm or RMSNorm over the last dimension; by 1 + weight, with apply_layernorm_1p, in float32 at least."""

    def __init__(self, config: TriarchConfig, width: int) -> None:
        super().__init__()
        self.eps, self.added = config.norm_epsilon, 1.0 if config.apply_layernorm_1p else 0.0
        self.weight = nn.Parameter(torch.full((width,), 1 - self.added))
        self.bias = nn.Parameter(torch.zeros(width)) if config.normalization == "LayerNorm" else None

    def forward(self, hidden: Tensor) -> Tensor:
        """[.., width] -> [.., width], same dtype."""
        dtype = torch.promote_types(hidden.dtype, torch.float32) if self.added else hidden.dtype
        wide, weight = hidden.to(dtype), self.weight.to(dtype) + self.added
        if self.bias is None:
            return F.rms_norm(wide, weight.shape, weight, self.eps).to(hidden.dtype)
        return F.layer_norm(wide, weight.shape, weight, self.bias.to(dtype), self.eps).to(hidden.dtype)


class TriarchAttention(nn.Module):
    """Self attention with shared key heads, its own table of relative positions where the model has them."""

    def __init__(self, config: TriarchConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx, self.head_dim = layer_idx, config.head_dim
        self.scale = config.softmax_scale or 1 / math.sqrt(config.head_dim)
        self.dropout = config.attention_dropout
        width, key_width = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        is_biased = not config.disable_bias_linear
        qkv_bias = is_biased or config.add_qkv_bias
        self.q_proj = nn.Linear(config.hidden_size, width, bias=qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_width, bias=qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_width, bias=qkv_bias)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=is_biased)
        self.q_norm = TriarchNorm(config, config.head_dim) if config.qk_layernorm else nn.Identity()
        self.k_norm = TriarchNorm(config, config.head_dim) if config.qk_layernorm else nn.Identity()
        if config.position_embedding_type == "relative":
            self.relative_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_attention_heads)

    def forward(self, hidden: Tensor, around: Surroundings) -> Tensor:
        """[b, s, h] -> [b, s, h]."""
        query, key, value = (
            projection(hidden).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = self.q_norm(query), self.k_norm(key)
        if around.rotation is not None:
            query, key = rotated(query, around.rotation), rotated(key, around.rotation)
        if around.cache is not None:
            key, value = around.cache.update(key, value, self.layer_idx)
        bias = around.distance_bias
        if around.buckets is not None:
            bias = self.relative_bias(around.buckets).permute(0, 3, 1, 2).float()
        mask = around.visible
        if mask is not None and bias is not None:
            mask = torch.where(mask, bias, -torch.inf).to(query.dtype)
        dropout, is_causal = self.dropout if self.training else 0.0, mask is None and query.shape[2] > 1
        is_grouped = key.shape[1] != query.shape[1]
        context = F.scaled_dot_product_attention(
            query, key, value, mask, dropout, is_causal, scale=self.scale, enable_gqa=is_grouped
        )
        return self.o_proj(context.transpose(1, 2).flatten(2))


class TriarchMLP(nn.Module):
    """The feed-forward layer, gated or not."""

    def __init__(self, config: TriarchConfig) -> None:
        super().__init__()
        sizes, bias = (config.hidden_size, config.intermediate_size), not config.disable_bias_linear
        self.activation = ACTIVATIONS[config.activation]
        self.gate_proj = nn.Linear(*sizes, bias=bias) if config.activation in GATED else None
        self.up_proj = nn.Linear(*sizes, bias=bias)
        self.down_proj = nn.Linear(*sizes[::-1], bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """[b, s, h] -> [b, s, h]."""
        up = self.up_proj(hidden)
        activated = self.activation(up) if self.gate_proj is None else self.activation(self.gate_proj(hidden)) * up
        return self.down_proj(activated)


class TriarchLayer(nn.Module):
    """Norm, attention, norm, feed-forward, each half around a residual."""

    def __init__(self, config: TriarchConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = TriarchNorm(config, config.hidden_size)
        self.self_attn = TriarchAttention(config, layer_idx)
        self.post_attention_layernorm = TriarchNorm(config, config.hidden_size)
        self.mlp = TriarchMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden: Tensor, around: Surroundings) -> Tensor:
        """[b, s, h] -> [b, s, h]."""
        hidden = hidden + self.dropout(self.self_attn(self.input_layernorm(hidden), around))
        return hidden + self.dropout(self.mlp(self.post_attention_layernorm(hidden)))


class TriarchDecoder(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, config: TriarchConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.position_embedding_type == "learned_absolute":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(TriarchLayer(config, number) for number in range(config.num_hidden_layers))
        self.norm = TriarchNorm(config, config.hidden_size)

    def forward(
        self, input_ids: Tensor, counted: Tensor, in_prefix: Tensor | None, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """[b, s] tokens -> [b, s, h]. counted: `token_positions` of all tokens; mask: a caller's attention_mask."""
        length, total = input_ids.shape[1], counted.shape[1]
        positions = counted[:, -length:]
        hidden = self.embed_tokens(input_ids)
        if self.config.scale_embeddings:
            hidden = hidden * torch.tensor(self.config.hidden_size**0.5, dtype=hidden.dtype, device=hidden.device)
        if self.config.position_embedding_type == "learned_absolute":
            hidden = hidden + self.embed_positions(positions)
        hidden = self.dropout(hidden)
        has_bias = self.config.position_embedding_type in ("alibi", "relative")
        visible = None
        if has_bias or in_prefix is not None or mask is not None or 1 < length < total:
            visible = visible_keys(length, total, in_prefix, mask, counted.device)
        around = self._surroundings(counted, positions, visible, cache)
        for layer in self.layers:
            hidden = layer(hidden, around)
        return self.norm(hidden)

    def _surroundings(
        self, counted: Tensor, positions: Tensor, visible: Tensor | None, cache: Cache | None
    ) -> Surroundings:
        kind = self.config.position_embedding_type
        bias = buckets = rotation = None
        distance = counted[:, None, :] - counted[:, -positions.shape[1] :, None]
        if kind == "alibi":
            slopes = alibi_slopes(self.config.num_attention_heads, counted.device)
            bias = -slopes[:, None, None] * distance[:, None].abs().float()
        elif kind == "relative":
            limits = self.config.relative_attention_num_buckets, self.config.relative_attention_max_distance
            buckets = relative_buckets(distance, *limits)
        elif kind == "rope":
            width = int(self.config.head_dim * self.config.rotary_percent)
            exponents = torch.arange(0, width, 2, dtype=torch.float32, device=counted.device) / width
            angles = positions[:, None, :, None].float() / self.config.rotary_base**exponents
            rotation = angles.cos(), angles.sin()
        return Surroundings(visible, bias, buckets, rotation, cache)


class TriarchForCausalLM(PreTrainedModel, GenerationMixin):
    """A causal or prefix decoder with its vocabulary head."""

    config_class = TriarchConfig
    base_model_prefix = "model"
    _no_split_modules = ["TriarchLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: TriarchConfig) -> None:
        super().__init__(config)
        self.model = TriarchDecoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TriarchNorm):
            nn.init.constant_(module.weight, 1 - module.added)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        prefix_lengths: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        num_items_in_batch: Tensor | int | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of each position's next token, [b, s, vocabulary], and the loss where there are labels.

        input_ids: int64 [b, s], behind the tokens of `past_key_values`. attention_mask: [b, all tokens], 0 for padding,
        on either side. A prefix, which is read both ways and must come in one piece: token_type_ids int64 [b, s], 1
        for its tokens, or prefix_lengths int64 [b], its tokens of each text without padding; without either there is
        none. Positions are counted from the mask. labels: int64 [b, s], -100 where there is none; the loss shifts them.
        logits_to_keep: positions from the end, 0 for all. num_items_in_batch: divides the loss. Raises ValueError and
        TypeError for what this model does not take.
        """
        asked = [name for name, value in others.items() if value is not None and value is not False]
        if asked:
            raise TypeError(f"{type(self).__name__} does not take {', '.join(asked)}")
        cache = past_key_values
        if cache is None and (self.config.use_cache if use_cache is None else use_cache) and labels is None:
            cache = DynamicCache(config=self.config)
        if getattr(cache, "is_compileable", False):
            raise ValueError(f"{type(self).__name__} needs a cache that grows, such as DynamicCache")
        total = input_ids.shape[1] + (cache.get_seq_length() if cache is not None else 0)
        if attention_mask is not None and attention_mask.shape != (len(input_ids), total):
            raise ValueError(f"attention_mask must be [{len(input_ids)}, {total}], is {[*attention_mask.shape]}")
        counted = token_positions(attention_mask, total, input_ids.device)
        in_prefix = prefix_members(counted[:, -input_ids.shape[1] :], token_type_ids, prefix_lengths)
        hidden = self.model(input_ids, counted, in_prefix, attention_mask, cache)[:, -logits_to_keep:]
        scale = self.config.hidden_size**-0.5 if self.config.scale_logits else 1.0
        logits = self.lm_head(hidden * scale)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, num_items_in_batch)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)

    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """transformers' generate; prompts are read both ways where the config says bidirectional_prompts.

        token_type_ids or prefix_lengths (see `forward`) name another prefix; zeros read the prompt from left to right.
        """
        prompt = kwargs.get("input_ids") if inputs is None else inputs
        if prompt is not None:
            lengths, types = kwargs.pop("prefix_lengths", None), kwargs.get("token_type_ids")
            if types is None and lengths is None and self.config.bidirectional_prompts:
                types = torch.ones_like(prompt)
            counted = token_positions(kwargs.get("attention_mask"), prompt.shape[1], prompt.device)
            in_prefix = prefix_members(counted, types, lengths)
            kwargs["token_type_ids"] = None if in_prefix is None else in_prefix.long()
        return super().generate(inputs, *args, **kwargs)

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """New tokens are behind the prefix; transformers would repeat the type of the last token."""
        types = model_kwargs.get("token_type_ids")
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        if types is not None:
            new_tokens = model_kwargs["token_type_ids"].shape[1] - types.shape[1]
            model_kwargs["token_type_ids"] = F.pad(types, (0, new_tokens))
        return model_kwargs
