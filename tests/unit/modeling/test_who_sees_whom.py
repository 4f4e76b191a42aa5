"""What a token may influence, on the real model: changing it moves the logits that may see it, and no other bit."""

import numpy as np
import pytest
import torch

from tests.oracles.one_process_model import VOCABULARY, batch_of, build_decoder, random_sequences, recipe_of

LENGTH, STARTS = 140, [50, 130]
VARIANTS = {
    "learned": {},
    "rope": {"position_embedding_type": "rope", "num_query_groups": 1, "normalization": "RMSNorm"},
    "alibi": {"position_embedding_type": "alibi"},
    "relative": {"position_embedding_type": "relative"},
}
CHANGED = [0, 49, 50, 127, 128, LENGTH - 1]


@pytest.fixture(scope="module", params=[(v, b) for v in VARIANTS for b in ("sdpa", "fused_softmax")], ids="-".join)
def decoder(request):
    variant, backend = request.param
    model = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "init_method_std": 0.2, **VARIANTS[variant]}
    return build_decoder(recipe_of(model, max_positions=LENGTH), backend=backend)[1].eval()


def logits_with_changed(decoder, position, **rules):
    """Logits [s, v] of a sequence with another token at `position`, in a batch with the unchanged one."""
    sequences = random_sequences(1, LENGTH).repeat(2, axis=0)
    if position is not None:
        sequences[1, position] = sequences[1, position] % (VOCABULARY - 1) + 1
    with torch.no_grad():
        return decoder(batch_of(sequences, document_starts=[STARTS, STARTS], **rules))


def document_of(position):
    return sum(start <= position for start in STARTS)


@pytest.mark.parametrize("position", CHANGED)
@pytest.mark.parametrize("reset_attention_mask", [False, True])
def test_a_token_moves_what_sees_it_and_nothing_else(decoder, position, reset_attention_mask):
    original, changed = logits_with_changed(decoder, position, reset_attention_mask=reset_attention_mask).unbind(1)
    moved = (original != changed).any(-1).numpy()
    may_move = np.arange(LENGTH) >= position
    if reset_attention_mask:
        may_move &= [document_of(other) == document_of(position) for other in range(LENGTH)]
    np.testing.assert_array_equal(moved, may_move)


def test_equal_rows_have_equal_logits(decoder):
    first, second = logits_with_changed(decoder, None).unbind(1)
    assert torch.equal(first, second)


@pytest.mark.parametrize("variant", VARIANTS)
def test_documents_of_a_row_are_what_they_are_alone(variant):
    """With both resets a document in the middle of a row gets the logits that it has at the start of one."""
    model = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "init_method_std": 0.2, **VARIANTS[variant]}
    _, decoder = build_decoder(recipe_of(model, max_positions=LENGTH))
    sequence = random_sequences(1, LENGTH)
    rules = {"reset_attention_mask": True, "reset_position_ids": True}
    with torch.no_grad():
        together = decoder(batch_of(sequence, document_starts=[STARTS], **rules))
        for start, end in zip([0, *STARTS], [*STARTS, LENGTH], strict=True):
            alone = decoder(batch_of(sequence[:, start : end + 1]))
            assert torch.allclose(together[start:end], alone, atol=2e-5), variant


def test_learned_positions_count_on_unless_they_are_reset():
    _, decoder = build_decoder(
        recipe_of({"num_layers": 1, "hidden_size": 32, "num_attention_heads": 4}, max_positions=8)
    )
    sequence = random_sequences(1, 8)
    with torch.no_grad():
        counting = decoder(batch_of(sequence, document_starts=[[4]], reset_attention_mask=True))
        reset = decoder(batch_of(sequence, document_starts=[[4]], reset_attention_mask=True, reset_position_ids=True))
    assert torch.equal(counting[:4], reset[:4])
    assert not torch.isclose(counting[4:], reset[4:]).all(-1).any()


def test_layers_attend_with_the_backend_that_was_chosen():
    calls = []

    def attend(query, key, value, visibility, *, scale, distance_bias, dropout_p=0.0):
        calls.append((tuple(query.shape), tuple(key.shape), visibility.is_causal, scale, distance_bias, dropout_p))
        return torch.zeros_like(query)

    model = {"num_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "num_query_groups": 2}
    _, decoder = build_decoder(recipe_of({**model, "attention_dropout": 0.25}, max_positions=8), attend=attend)
    decoder.eval()(batch_of(random_sequences(2, 8)))
    assert calls == [((2, 4, 8, 8), (2, 2, 8, 8), True, pytest.approx(8**-0.5), None, 0.0)] * 3
    decoder.train()(batch_of(random_sequences(2, 8)))
    assert [call[-1] for call in calls[3:]] == [0.25] * 3
