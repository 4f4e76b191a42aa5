"""UMT5 (Chung et al. 2023): T5 1.1 with a table of distances in every layer.

Source: transformers' UMT5ForConditionalGeneration. Since version 5 it takes every config for tied, and then scales the
head's input; what it computes is what counts here. A head of its own without that scale takes a folder that turns tying
off (see t5.py). With the scale nothing can keep `tie_weights` from replacing it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from megatron.conversion.described_model import DescribedModel
from megatron.conversion.families import t5
from megatron.conversion.rules import Rule
from megatron.conversion.transforms import Transposed


class UMT5Family(t5.T5Family):
    """UMT5, in which a head without a scale has a table of its own."""

    def faults(self, described: DescribedModel, *, by_name: bool = False) -> Iterator[str]:
        """See Family."""
        yield from super().faults(described, by_name=by_name)
        model = described.model
        is_tied = not model.untie_embeddings_and_output_weights
        if described.architecture in self.architectures and is_tied and not model.scale_logits:
            yield (
                f"--family {self.name} has no --scale-logits off without --untie-embeddings-and-output-weights; a head "
                "that is the table of words is scaled there."
            )

    def remarks(self, config: Mapping[str, Any], described: DescribedModel) -> Iterator[str]:
        """See Family."""
        yield from super().remarks(config, described)
        if config.get("tie_word_embeddings") is False and described.model.scale_logits:
            yield (
                "config.json: tie_word_embeddings false says that the logits are not scaled, and transformers 5 scales "
                "them for every UMT5; the run does as transformers does, by --scale-logits. See docs/conversion.md for "
                "the head as it was trained."
            )


def rules(described: DescribedModel) -> tuple[Rule, ...]:
    """Every tensor."""
    tables = (
        Rule(
            f"{stack}.layers.{{i}}.self_attention.core_attention.relative_bias.weight",
            (f"{stack}.block.{{i}}.{t5.TABLE}",),
            Transposed(),
        )
        for stack in ("encoder", "decoder")
    )
    return (*tables, *t5.rules_beside_tables(described))


def read(config: Mapping[str, Any], tensors: Collection[str]) -> dict[str, Any]:
    """Layers, heads, activation and head."""
    is_tied = bool(config.get("tie_word_embeddings", True))
    return {
        **t5.read_sizes(config),
        "scale_logits": is_tied,
        "untie_embeddings_and_output_weights": t5.HEAD in tensors or not is_tied,
    }


UMT5 = UMT5Family(
    name="umt5",
    model_type="umt5",
    class_name="UMT5ForConditionalGeneration",
    architectures=("encoder_decoder",),
    fixed={**t5.FORM, "relative_bias_per_layer": True},
    choices={"activation": tuple(t5.FEED_FORWARDS)},
    sizes=t5.SIZES,
    expected={"is_encoder_decoder": True},
    legal={"feed_forward_proj": tuple(t5.READ_FEED_FORWARDS)},
    positions=t5.POSITIONS,
    rules=rules,
    read=read,
    write=t5.write_sizes,
    copies=dict.fromkeys(t5.COPIES, "shared.weight"),
)
