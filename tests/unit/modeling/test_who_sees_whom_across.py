"""What a token may influence in an encoder-decoder: changing it moves the logits that may see it, and no other bit."""

import numpy as np
import pytest
import torch

from megatron.architectures.encoder_decoder import EncoderDecoder
from megatron.architectures.row_rules import RowRules
from megatron.data.collate import collate
from megatron.records.example import SequencePair
from tests.oracles.one_process_model import VOCABULARY, build_decoder, recipe_of

INPUTS, TARGETS = (70, 60), (50, 90)  # of two examples in one row; more than one block of queries
LENGTHS = (140, 150)  # with padding behind them
VARIANTS = {
    "learned": {},
    "rope": {"position_embedding_type": "rope", "num_query_groups": 2, "normalization": "RMSNorm"},
    "alibi": {"position_embedding_type": "alibi"},
    "relative": {"position_embedding_type": "relative"},
}


@pytest.fixture(scope="module", params=[(v, b) for v in VARIANTS for b in ("sdpa", "fused_softmax")], ids="-".join)
def model(request):
    variant, backend = request.param
    options = {
        "num_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "init_method_std": 0.2,
        **VARIANTS[variant],
    }
    recipe = recipe_of(options, max_positions=max(LENGTHS), architecture="encoder_decoder", lengths=LENGTHS)
    return build_decoder(recipe, backend=backend)[1].eval()


def logits_of(model, examples):
    """Logits [rows, s_dec, v] of a batch with one row for each list of examples."""
    rules = RowRules(seq_length=LENGTHS[0], decoder_seq_length=LENGTHS[1], end_token=0)
    rows = [EncoderDecoder().arrange(row, rules) for row in examples]
    with torch.no_grad():
        return model(collate(rows)).transpose(0, 1)


def random_examples(seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda length: rng.integers(1, VOCABULARY, length, dtype=np.int32)  # noqa: E731
    return [SequencePair(draw(inputs), draw(targets)) for inputs, targets in zip(INPUTS, TARGETS, strict=True)]


def changed(example, side, position):
    tokens = getattr(example, side).copy()
    tokens[position] = tokens[position] % (VOCABULARY - 1) + 1
    return SequencePair(**{"inputs": example.inputs, "targets": example.targets, side: tokens})


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("position", [0, 30, 49])
def test_an_input_moves_all_targets_of_its_example_and_nothing_else(model, number, position):
    examples = random_examples()
    other = list(examples)
    other[number] = changed(examples[number], "inputs", position)
    before, after = logits_of(model, [examples, other])
    moved = (before != after).any(-1).numpy()
    starts = np.cumsum([0, *TARGETS])
    may_move = np.zeros(LENGTHS[1], bool)
    may_move[starts[number] : starts[number + 1]] = True
    np.testing.assert_array_equal(moved, may_move)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("position", [0, 20, 48])
def test_a_target_moves_what_comes_behind_it_in_its_example(model, number, position):
    """Target p is the decoder's token at p + 1."""
    examples = random_examples()
    other = list(examples)
    other[number] = changed(examples[number], "targets", position)
    before, after = logits_of(model, [examples, other])
    moved = (before != after).any(-1).numpy()
    starts = np.cumsum([0, *TARGETS])
    may_move = np.zeros(LENGTHS[1], bool)
    may_move[starts[number] + position + 1 : starts[number + 1]] = True
    np.testing.assert_array_equal(moved, may_move)


def test_a_packed_example_is_what_it_is_alone(model):
    examples = random_examples()
    packed, first, second = logits_of(model, [examples, examples[:1], examples[1:]])
    begin, end = TARGETS[0], sum(TARGETS)
    assert torch.equal(packed[:begin], first[:begin])  # nothing stands before it
    assert torch.allclose(packed[begin:end], second[: end - begin], atol=2e-5)
