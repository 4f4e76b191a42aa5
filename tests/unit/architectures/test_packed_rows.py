"""Packing changes nothing for an example: in a packed row the real model gives it the logits that it has alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.data.collate import collate
from megatron.records.example import SequencePair
from tests.oracles.one_process_model import VOCABULARY, build_decoder, recipe_of

EXAMPLES = ((5, 7), (2, 9), (3, 1), (6, 4))  # inputs and targets; their tokens are drawn
LENGTH = 40
CASES = [
    *[("causal_decoder", kind, starts) for kind in ("rope", "learned_absolute", "alibi") for starts in (False, True)],
    *[("prefix_decoder", kind, starts) for kind in ("rope", "relative") for starts in (False, True)],
    ("encoder_decoder", "relative", False),
    ("encoder_decoder", "rope", False),
]


def drawn_examples() -> list[SequencePair]:
    generator = np.random.default_rng(0)
    drawn = [generator.integers(1, VOCABULARY, sum(pair)).astype(np.int32) for pair in EXAMPLES]
    return [SequencePair(tokens[:inputs], tokens[inputs:]) for tokens, (inputs, _) in zip(drawn, EXAMPLES, strict=True)]


@pytest.mark.parametrize(("architecture", "positions", "starts"), CASES)
def test_logits_in_a_packed_row_are_those_of_the_example_alone(architecture: str, positions: str, starts: bool) -> None:
    """Rows of one length with one example each, and the row of all: the same positions, visibility and logits."""
    sizes = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "init_method_std": 0.2}
    recipe = recipe_of(
        {**sizes, "position_embedding_type": positions},
        max_positions=LENGTH,
        architecture=architecture,
        lengths=(LENGTH, LENGTH),
    )
    model = build_decoder(recipe)[1].eval()
    rules = RowRules(seq_length=LENGTH, decoder_seq_length=LENGTH, end_token=0, begins_with_start_token=starts)
    arrange = ARCHITECTURES[architecture]().arrange
    with torch.no_grad():
        packed = model(collate([arrange(drawn_examples(), rules)]))[:, 0]
        alone = model(collate([arrange([example], rules) for example in drawn_examples()]))
    begin = 0
    for number, (inputs, targets) in enumerate(EXAMPLES):
        length = targets if architecture == "encoder_decoder" else inputs + targets
        torch.testing.assert_close(packed[begin : begin + length], alone[:length, number], atol=2e-5, rtol=1e-4)
        begin += length
