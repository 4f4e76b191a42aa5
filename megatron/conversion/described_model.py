"""What a checkpoint of ours or a Hugging Face folder says of its model: the form between both."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.shapes import ModelShape
from megatron.architectures.weights import stage_weights
from megatron.modeling.options import ModelOptions


@dataclass(frozen=True, kw_only=True)
class DescribedModel:
    """A model by its function and shapes.

    vocabulary_size: words, without the padding of the tables. max_positions: rows of a table of learned positions, and
    the length that the model is meant for. begins_with_start_token: texts of training began with `start_token`.
    ends_inputs: complete inputs had the end token behind them. reads_running_text: training knew no inputs, so that a
    prompt is the beginning of a text, which a prefix decoder reads from left to right as well.
    start_token, end_token, pad_token: ids, None where there is none; a tokenizer may have a start token that its texts
    do not begin with. dtype: of the weights, as torch calls it.
    """

    architecture: str
    model: ModelOptions
    vocabulary_size: int
    max_positions: int
    begins_with_start_token: bool = False
    ends_inputs: bool = True
    reads_running_text: bool = False
    start_token: int | None = None
    end_token: int | None = None
    pad_token: int | None = None
    dtype: str = "float32"

    @property
    def shape(self) -> ModelShape:
        """The same for what counts weights; rows are as long as they may be."""
        return ModelShape(
            architecture=ARCHITECTURES[self.architecture](),
            model=self.model,
            vocabulary_size=self.vocabulary_size,
            max_positions=self.max_positions,
            lengths=(self.max_positions, self.max_positions),
        )

    @property
    def reads_prompts_both_ways(self) -> bool:
        """Whether each token of a prompt sees all of it, in a row that the answer stands in too."""
        return self.architecture == "prefix_decoder" and not self.reads_running_text

    def canonical_model(self) -> ModelOptions:
        """The same model with one way to say each thing: sizes given, and what follows from them left out."""
        model = self.model
        is_usual_scale = model.softmax_scale == 1 / math.sqrt(model.head_size)
        return replace(
            model,
            ffn_hidden_size=model.ffn_size,
            num_query_groups=None if model.query_groups == model.num_attention_heads else model.query_groups,
            kv_channels=None if model.head_size * model.num_attention_heads == model.hidden_size else model.head_size,
            softmax_scale=None if is_usual_scale else model.softmax_scale,
            add_qkv_bias=model.add_qkv_bias and model.disable_bias_linear,
        )

    def weights(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of a checkpoint of ours, by its name; tables with their padding."""
        shape = self.shape
        return {weight.name: weight.shape for weight in stage_weights(shape, shape.whole())}
