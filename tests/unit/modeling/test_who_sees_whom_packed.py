"""What a token may influence in rows of several examples: changing it moves logits that may see it, and no bit else.

Who may see whom is said here again, from inputs and targets, and not taken from the intervals.
"""

import numpy as np
import pytest
import torch

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.data.collate import collate
from megatron.records.example import SequencePair
from tests.oracles.one_process_model import VOCABULARY, build_decoder, recipe_of

EXAMPLES = ((40, 25), (0, 30), (30, 20))  # inputs and targets of each; more than one block of queries, and padding
LENGTH = 160
VARIANTS = {
    "learned": {},
    "rope": {"position_embedding_type": "rope", "num_query_groups": 2, "normalization": "RMSNorm"},
    "alibi": {"position_embedding_type": "alibi"},
    "relative": {"position_embedding_type": "relative"},
}
STARTS = np.cumsum([0, *(inputs + targets for inputs, targets in EXAMPLES)])


@pytest.fixture(scope="module", params=[(v, b) for v in VARIANTS for b in ("sdpa", "fused_softmax")], ids="-".join)
def decoder(request):
    variant, backend = request.param
    sizes = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "init_method_std": 0.2}
    recipe = recipe_of({**sizes, **VARIANTS[variant]}, max_positions=LENGTH)
    return build_decoder(recipe, backend=backend)[1].eval()


def logits_of(decoder, architecture, sequences):
    """Logits [rows, s, v] of rows that hold the examples of EXAMPLES, cut out of token sequences."""
    rules = RowRules(seq_length=LENGTH, end_token=0)
    rows = []
    for sequence in sequences:
        examples = [
            SequencePair(sequence[start : start + inputs], sequence[start + inputs : start + inputs + targets])
            for start, (inputs, targets) in zip(STARTS, EXAMPLES, strict=False)
        ]
        rows.append(ARCHITECTURES[architecture]().arrange(examples, rules))
    with torch.no_grad():
        return decoder(collate(rows)).transpose(0, 1)


@pytest.mark.parametrize("architecture", ["causal_decoder", "prefix_decoder"])
@pytest.mark.parametrize("position", [0, 39, 40, 64, 65, 94, 95, 110, 124, 125, 144])
def test_a_token_moves_what_sees_it_and_nothing_else(decoder, architecture, position):
    sequence = np.random.default_rng(0).integers(1, VOCABULARY, STARTS[-1], dtype=np.int32)
    other = sequence.copy()
    other[position] = other[position] % (VOCABULARY - 1) + 1
    before, after = logits_of(decoder, architecture, [sequence, other])
    moved = (before != after).any(-1).numpy()

    example = int(np.searchsorted(STARTS, position, side="right")) - 1
    inputs, _ = EXAMPLES[example]
    is_read_both_ways = architecture == "prefix_decoder" and position < STARTS[example] + inputs
    may_move = np.zeros(LENGTH, bool)
    may_move[STARTS[example] if is_read_both_ways else position : STARTS[example + 1]] = True
    np.testing.assert_array_equal(moved, may_move)
