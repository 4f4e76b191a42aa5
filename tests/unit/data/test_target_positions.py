"""The vocabulary head at targets alone: which positions, and that a model learns the same from them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.data.collate import collate
from megatron.data.target_positions import with_head_at_targets
from megatron.records.batch import Batch, Visibility
from megatron.records.example import SequencePair
from tests.oracles.one_process_model import VOCABULARY, build_decoder, one_process_grid, recipe_of


def batch_of(loss_mask: np.ndarray) -> Batch:
    tokens = torch.arange(loss_mask.size).reshape(loss_mask.shape)
    nothing = Visibility(torch.zeros(*loss_mask.shape, 2, dtype=torch.int32), loss_mask.shape[1])
    return Batch(tokens, tokens, torch.from_numpy(loss_mask), tokens, nothing)


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.sampled_from(np.float32([0, 1]))
    )
)
def test_every_target_once_where_they_are_few(loss_mask: np.ndarray) -> None:
    given_batch = batch_of(loss_mask)
    batch = with_head_at_targets(given_batch)
    if batch.head_positions is None:
        assert batch is given_batch and (not loss_mask.any() or loss_mask.mean() > 0.75)
        return
    position, row = batch.head_positions.tolist()
    assert loss_mask.mean() <= 0.75
    assert sorted(zip(row, position, strict=True)) == [tuple(index) for index in np.argwhere(loss_mask).tolist()]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_learns_the_same(architecture: str) -> None:
    rules = RowRules(seq_length=24, decoder_seq_length=24, end_token=0)
    numbers = np.random.default_rng(3)
    examples = [
        SequencePair(*np.split(numbers.integers(1, VOCABULARY, 10, dtype=np.int32), [length])) for length in (7, 4)
    ]
    batch = collate([ARCHITECTURES[architecture]().arrange([example], rules) for example in examples])
    recipe = recipe_of(
        {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4},
        max_positions=24,
        architecture=architecture,
        lengths=(24, 24),
    )
    _, chunk = build_decoder(recipe)
    found = []
    for version in (batch, with_head_at_targets(batch)):
        chunk.zero_grad()
        outputs = chunk(version)
        (loss,) = recipe.architecture.losses(
            outputs, version, one_process_grid(), vocabulary_size=VOCABULARY, z_loss_coeff=1e-3
        ).values()
        loss.total.backward()
        gradients = {name: weight.grad.clone() for name, weight in chunk.named_parameters()}
        found.append((outputs.shape[:2], loss, gradients))
    (all_positions, expected, expected_gradients), (few, loss, gradients) = found
    assert tuple(all_positions) == (24, 2) and tuple(few) == (int(expected.count), 1)
    assert int(loss.count) == int(expected.count) and float(loss.total) == pytest.approx(
        float(expected.total), rel=1e-6
    )
    assert float(loss.z_loss) == pytest.approx(float(expected.z_loss), rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected_gradients[name], rtol=1e-4, atol=1e-6), name
