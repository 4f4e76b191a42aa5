"""T5 1.0 and 1.1 (Raffel et al. 2020; Shazeer 2020 for the gated layers of 1.1).

Source: transformers' T5ForConditionalGeneration. What parts the versions is `scale_decoder_outputs`: transformers 5
sets `tie_word_embeddings` in every config that it fills, and a head of its own is one whose tensor is there.

It leaves such a head alone while it loads a folder, and replaces it by the table of words as soon as anybody calls
`tie_weights`, as lm-eval 0.4.13 does. Our folders of such models therefore turn tying off, by the one way that its
config leaves open, and then have to hold the table three times.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from megatron.basics.errors import UserError
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.family import Family
from megatron.conversion.rules import Rule
from megatron.conversion.transforms import Grouped, Same, Stacked, Transform, Transposed, Words

FEED_FORWARDS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_new",
    "geglu_tanh": "gated-gelu",
    "swiglu": "gated-silu",
}
ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_new",
    "geglu_tanh": "gelu_new",
    "swiglu": "silu",
}
READ_FEED_FORWARDS = {**{theirs: ours for ours, theirs in FEED_FORWARDS.items()}, "gated-gelu_new": "geglu_tanh"}
POSITIONS = "n_positions"
USUAL_POSITIONS = 512  # of T5's own training; configs that transformers fills leave them out
START = "decoder_start_token_id"
HEAD = "lm_head.weight"
TABLES_OF_STACKS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
COPIES = (HEAD, *TABLES_OF_STACKS)
HEAD_IS_TABLE = "head_is_word_table"
# A config drops `tie_word_embeddings: false`, but not a field that its own map of names takes for the same one. The map
# is the class's with that field more, and must be read before it.
UNTIED: dict[str, Any] = {
    "attribute_map": {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
        HEAD_IS_TABLE: "tie_word_embeddings",
    },
    HEAD_IS_TABLE: False,
}
TABLE = "layer.0.SelfAttention.relative_attention_bias.weight"

FORM: dict[str, Any] = {
    "normalization": "RMSNorm",
    "position_embedding_type": "relative",
    "disable_bias_linear": True,
    "add_qkv_bias": False,
    "num_query_groups": None,
    "qk_layernorm": False,
    "softmax_scale": 1.0,
    "relative_bias_per_layer": False,
    "apply_layernorm_1p": False,
    "scale_embeddings": False,
}
SIZES = {
    "hidden_size": "d_model",
    "ffn_hidden_size": "d_ff",
    "num_attention_heads": "num_heads",
    "norm_epsilon": "layer_norm_epsilon",
    "relative_attention_num_buckets": "relative_attention_num_buckets",
    "relative_attention_max_distance": "relative_attention_max_distance",
}


class T5Family(Family):
    """A family of encoder-decoders: decoders start with the padding token, and configs often name no positions."""

    def describe(self, config: Mapping[str, Any], tensors: Collection[str]) -> DescribedModel:
        """See Family."""
        start, pad = config.get(START), config.get("pad_token_id")
        if start not in (None, pad):
            raise UserError(
                f"config.json: {START} {start} has no counterpart; decoders start with the padding token, here {pad}."
            )
        whole = {POSITIONS: USUAL_POSITIONS, **config, "bos_token_id": None}
        described = super().describe(whole, tensors)
        # transformers computes with these two where a config has them, whatever feed_forward_proj says.
        computed = {"is_gated_act": described.model.is_gated, "dense_act_fn": ACTIVATIONS[described.model.activation]}
        faults = [
            f"config.json: {name} {config[name]!r} is not that of feed_forward_proj {config['feed_forward_proj']!r}, "
            f"{value!r}; correct whichever is wrong."
            for name, value in computed.items()
            if config.get(name, value) != value
        ]
        if faults:
            raise UserError(*faults)
        return described

    def written_copies(self, described: DescribedModel) -> tuple[str, ...]:
        """See Family."""
        return TABLES_OF_STACKS if turns_tying_off(described) else ()


class T5(T5Family):
    """T5 itself, in which a scaled head is the table of words."""

    def faults(self, described: DescribedModel, *, by_name: bool = False) -> Iterator[str]:
        """See Family."""
        yield from super().faults(described, by_name=by_name)
        model = described.model
        is_tied = not model.untie_embeddings_and_output_weights
        if described.architecture in self.architectures and model.scale_logits and not is_tied:
            yield (
                f"--family {self.name} has no --scale-logits with --untie-embeddings-and-output-weights; a scaled head "
                "is the table of words there."
            )


def rules(described: DescribedModel) -> tuple[Rule, ...]:
    """Every tensor; the first layer of each stack holds the table of distances."""
    tables = (
        Rule(f"{stack}.relative_bias.weight", (f"{stack}.block.0.{TABLE}",), Transposed())
        for stack in ("encoder", "decoder")
    )
    return (*tables, *rules_beside_tables(described))


def rules_beside_tables(described: DescribedModel) -> tuple[Rule, ...]:
    """Every tensor but tables of distances."""
    words = Words(described.vocabulary_size, described.shape.padded_vocabulary_size)
    return (
        Rule("embedding.word_embeddings.weight", ("shared.weight",), words),
        Rule("output_layer.weight", (HEAD,), words),
        *_stack(described, "encoder", feed_forward=1),
        *_stack(described, "decoder", feed_forward=2),
        *_cross_attention(described),
    )


def _stack(described: DescribedModel, stack: str, *, feed_forward: int) -> tuple[Rule, ...]:
    """A stack without its cross attention; `feed_forward` is the number of that sub-layer."""
    model = described.model
    qkv = Grouped(model.num_attention_heads, (1, 1, 1), model.head_size)
    ours, theirs = f"{stack}.layers.{{i}}", f"{stack}.block.{{i}}.layer"
    attention, dense = f"{theirs}.0.SelfAttention", f"{theirs}.{feed_forward}.DenseReluDense"
    inner: Transform = Stacked(2) if model.is_gated else Same()
    names = ("wi_0", "wi_1") if model.is_gated else ("wi",)
    return (
        Rule(f"{stack}.final_layernorm.weight", (f"{stack}.final_layer_norm.weight",)),
        Rule(f"{ours}.input_layernorm.weight", (f"{theirs}.0.layer_norm.weight",)),
        Rule(f"{ours}.self_attention.linear_qkv.weight", tuple(f"{attention}.{part}.weight" for part in "qkv"), qkv),
        Rule(f"{ours}.self_attention.linear_proj.weight", (f"{attention}.o.weight",)),
        Rule(f"{ours}.pre_mlp_layernorm.weight", (f"{theirs}.{feed_forward}.layer_norm.weight",)),
        Rule(f"{ours}.mlp.linear_fc1.weight", tuple(f"{dense}.{name}.weight" for name in names), inner),
        Rule(f"{ours}.mlp.linear_fc2.weight", (f"{dense}.wo.weight",)),
    )


def _cross_attention(described: DescribedModel) -> tuple[Rule, ...]:
    model = described.model
    key_value = Grouped(model.num_attention_heads, (1, 1), model.head_size)
    ours, theirs = "decoder.layers.{i}", "decoder.block.{i}.layer.1"
    cross, attention = f"{ours}.cross_attention", f"{theirs}.EncDecAttention"
    return (
        Rule(f"{ours}.pre_cross_attn_layernorm.weight", (f"{theirs}.layer_norm.weight",)),
        Rule(f"{cross}.linear_q.weight", (f"{attention}.q.weight",)),
        Rule(f"{cross}.linear_kv.weight", tuple(f"{attention}.{part}.weight" for part in "kv"), key_value),
        Rule(f"{cross}.linear_proj.weight", (f"{attention}.o.weight",)),
    )


def read(config: Mapping[str, Any], tensors: Collection[str]) -> dict[str, Any]:
    """Layers, heads, activation and head; only a head that is not scaled can have a table of its own."""
    is_tied = bool(config.get("tie_word_embeddings", True))
    is_scaled = bool(config.get("scale_decoder_outputs", is_tied))
    return {
        **read_sizes(config),
        "scale_logits": is_scaled,
        "untie_embeddings_and_output_weights": not is_scaled and (HEAD in tensors or not is_tied),
    }


def read_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Layers, width of a head, activation and dropout, which is the same everywhere."""
    layers = config["num_layers"]
    return {
        "num_layers": layers,
        "encoder_num_layers": layers,
        "decoder_num_layers": config.get("num_decoder_layers") or layers,
        "kv_channels": config["d_kv"],
        "activation": READ_FEED_FORWARDS[config["feed_forward_proj"]],
        "hidden_dropout": config.get("dropout_rate", 0.0),
        "attention_dropout": config.get("dropout_rate", 0.0),
    }


def write(described: DescribedModel) -> dict[str, Any]:
    """The inverse of `read`. The tie flag is how versions before transformers 5 tell whether the head is scaled."""
    is_scaled = described.model.scale_logits
    return {**write_sizes(described), "scale_decoder_outputs": is_scaled, "tie_word_embeddings": is_scaled}


def turns_tying_off(described: DescribedModel) -> bool:
    """Whether a folder says that the head is not the table; without tying, UMT5 does not scale the head's input."""
    model = described.model
    return model.untie_embeddings_and_output_weights and not model.scale_logits


def write_sizes(described: DescribedModel) -> dict[str, Any]:
    """The inverse of `read_sizes`, the decoder's start token, and what keeps a head from being tied."""
    model = described.model
    return {
        "num_layers": model.encoder_layers,
        "num_decoder_layers": model.decoder_layers,
        "d_kv": model.head_size,
        "feed_forward_proj": FEED_FORWARDS[model.activation],
        "dropout_rate": model.hidden_dropout,
        START: described.pad_token,
        **(UNTIED if turns_tying_off(described) else {}),
    }


T5_FAMILY = T5(
    name="t5",
    model_type="t5",
    class_name="T5ForConditionalGeneration",
    architectures=("encoder_decoder",),
    fixed=FORM,
    choices={"activation": tuple(FEED_FORWARDS)},
    sizes=SIZES,
    expected={"is_encoder_decoder": True},
    legal={"feed_forward_proj": tuple(READ_FEED_FORWARDS)},
    positions=POSITIONS,
    rules=rules,
    read=read,
    write=write,
    copies=dict.fromkeys(COPIES, "shared.weight"),
    ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
)
