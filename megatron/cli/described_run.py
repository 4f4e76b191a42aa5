"""What the settings of a run say of its model, in the form that conversions work with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron.cli.figures import model_shape
from megatron.cli.run_config import RunConfig
from megatron.cli.wire_rows import row_rules
from megatron.conversion.described_model import DescribedModel
from megatron.objectives.registry import OBJECTIVES
from megatron.records.example import RunningText

if TYPE_CHECKING:
    from megatron.tokenization.tokenizer import Tokenizer


def describe_run(config: RunConfig, tokenizer: Tokenizer, dtype: str = "float32") -> DescribedModel:
    """The model of a run; dtype: of its weights, as torch prints it without `torch.`."""
    rules = row_rules(config, tokenizer)
    has_encoder = config.architecture == "encoder_decoder"
    begin = None if has_encoder else tokenizer.special.begin
    return DescribedModel(
        architecture=config.architecture,
        model=config.model,
        vocabulary_size=tokenizer.vocabulary_size,
        max_positions=model_shape(config, tokenizer.vocabulary_size).max_positions,
        begins_with_start_token=rules.begins_with_start_token,
        ends_inputs=OBJECTIVES[config.objective].ends_inputs,
        reads_running_text=OBJECTIVES[config.objective].produces is RunningText,
        start_token=rules.start_token if rules.begins_with_start_token else begin,
        end_token=tokenizer.eod_id,
        pad_token=tokenizer.pad_id if has_encoder else tokenizer.special.pad,  # decoders behind encoders begin with it
        dtype=dtype,
    )
