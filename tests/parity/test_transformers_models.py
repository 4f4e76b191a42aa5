"""With the same weights our decoder gives the logits, the loss and the gradients of transformers' models."""

import pytest
import torch
from families import FAMILIES, LENGTH, copy_weights, make_theirs

from megatron.losses.token_cross_entropy import token_cross_entropy
from tests.oracles.one_process_model import (
    VOCABULARY,
    batch_of,
    build_decoder,
    one_process_grid,
    random_sequences,
    recipe_of,
)

BACKENDS = ["sdpa", "fused_softmax"]


def both(name, backend, dtype):
    theirs = make_theirs(name, dtype)
    recipe = recipe_of(FAMILIES[name].model, max_positions=LENGTH)
    _, ours = build_decoder(recipe, backend=backend, dtype=dtype)
    copy_weights(name, theirs, ours)
    return ours, theirs


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logits(name, backend, dtype):
    ours, theirs = both(name, backend, dtype)
    batch = batch_of(random_sequences(2, LENGTH))
    with torch.no_grad():
        expected = theirs(batch.tokens).logits
        got = ours(batch).transpose(0, 1)
    assert got.shape == (2, LENGTH, 128)
    tolerance = max(FAMILIES[name].tolerance, 2e-5 if dtype == torch.float32 else 0.0)
    assert expected.std() > 0.3  # of the size that trained models give, so that the tolerance means something
    assert torch.allclose(got[..., :VOCABULARY], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients(name, backend):
    ours, theirs = both(name, backend, torch.float64)
    batch = batch_of(random_sequences(2, LENGTH, seed=1), inputs=11)
    labels = torch.where(batch.loss_mask > 0, batch.labels, -100)

    loss = token_cross_entropy(ours(batch), batch, one_process_grid(), vocabulary_size=VOCABULARY)
    assert int(loss.count) == 2 * (LENGTH - 10)
    (loss.total / loss.count).backward()
    expected = torch.nn.functional.cross_entropy(theirs(batch.tokens).logits.flatten(0, 1), labels.flatten())
    expected.backward()
    assert float(loss.total / loss.count) == pytest.approx(float(expected), rel=2e-6)

    gradients = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    for key, wanted in FAMILIES[name].weights(gradients, theirs.config).items():
        got = dict(ours.named_parameters())[key].grad
        # The loss is computed in float32 whatever the logits are.
        assert torch.allclose(got[: len(wanted)], wanted, rtol=1e-4, atol=2e-6 * float(wanted.abs().max())), key
        assert not got[len(wanted) :].any(), f"{key}: rows of the padding have gradients"
