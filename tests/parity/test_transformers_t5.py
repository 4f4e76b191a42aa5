"""With the same weights our encoder-decoder gives the logits, the loss and the gradients of transformers' T5."""

import numpy as np
import pytest
import torch
import transformers
from transformers_weights import from_t5

from megatron.architectures.encoder_decoder import EncoderDecoder
from megatron.architectures.row_rules import RowRules
from megatron.data.collate import collate
from megatron.losses.token_cross_entropy import token_cross_entropy
from megatron.records.example import SequencePair
from tests.oracles.one_process_model import VOCABULARY, build_decoder, one_process_grid, recipe_of

LENGTHS = (150, 135)  # beyond T5's largest exact distances, and more than one block of queries
SIZES = {"d_model": 48, "d_kv": 8, "d_ff": 80, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
MODEL = {
    "encoder_num_layers": 3,
    "decoder_num_layers": 2,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "kv_channels": 8,
    "ffn_hidden_size": 80,
    "normalization": "RMSNorm",
    "norm_epsilon": 1e-6,
    "position_embedding_type": "relative",
    "disable_bias_linear": True,
    "softmax_scale": 1.0,
}
VERSIONS = {
    "t5": ({"feed_forward_proj": "relu"}, {"activation": "relu", "scale_logits": True}),
    "t5-1.1": (
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        {"activation": "geglu_tanh", "untie_embeddings_and_output_weights": True},
    ),
}


@pytest.fixture(params=VERSIONS)
def both(request):
    return make_both(request.param)


def make_both(version):
    """Our model and theirs in float64, with the same random weights."""
    theirs_changed, ours_changed = VERSIONS[version]
    config = transformers.T5Config(
        vocab_size=VOCABULARY, dropout_rate=0.0, decoder_start_token_id=0, use_cache=False, **SIZES, **theirs_changed
    )
    torch.manual_seed(1)
    theirs = transformers.T5ForConditionalGeneration(config).double().eval()
    if "tie_word_embeddings" in theirs_changed:
        theirs.lm_head.weight = torch.nn.Parameter(torch.randn_like(theirs.lm_head.weight) * 0.1)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "relative_attention_bias" in name or "layer_norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)  # its own start has next to no bias, and equal norms
    recipe = recipe_of(
        {**MODEL, **ours_changed}, max_positions=max(LENGTHS), architecture="encoder_decoder", lengths=LENGTHS
    )
    _, ours = build_decoder(recipe, backend="fused_softmax", dtype=torch.float64)
    copied = set()
    parameters = ours_by_name(ours)
    with torch.no_grad():
        for name, weight in from_t5(dict(theirs.named_parameters()), config).items():
            parameters[name].copy_(weight)
            copied.add(name)
    assert copied == set(parameters)
    return ours, theirs


def ours_by_name(model):
    from megatron.layout.initial_weights import global_names

    return dict(global_names(model))


def batch_of_pairs():
    rng = np.random.default_rng(0)
    rules = RowRules(seq_length=LENGTHS[0], decoder_seq_length=LENGTHS[1], end_token=1)
    rows = []
    for lengths in (LENGTHS, (100, 90)):  # the second row ends in padding
        inputs, targets = (rng.integers(2, VOCABULARY, length, dtype=np.int32) for length in lengths)
        rows.append(EncoderDecoder().arrange([SequencePair(inputs, targets)], rules))
    return collate(rows)


def test_logits_loss_and_gradients(both):
    ours, theirs = both
    batch = batch_of_pairs()
    attention_mask = torch.ones_like(batch.encoder.tokens)
    attention_mask[1, 100:] = 0
    labels = torch.where(batch.loss_mask > 0, batch.labels, -100)
    output = theirs(
        input_ids=batch.encoder.tokens, attention_mask=attention_mask, decoder_input_ids=batch.tokens, labels=labels
    )
    output.loss.backward()

    logits = ours(batch)
    got = logits.detach().clone().transpose(0, 1)[..., :VOCABULARY]  # the loss reuses the memory of the logits
    assert output.logits.std() > 0.3
    is_target = batch.loss_mask > 0
    assert torch.allclose(got[is_target], output.logits[is_target], rtol=1e-5, atol=1e-5)

    loss = token_cross_entropy(logits, batch, one_process_grid(), vocabulary_size=VOCABULARY)
    (loss.total / loss.count).backward()
    assert float(loss.total / loss.count) == pytest.approx(float(output.loss), rel=2e-6)
    gradients = from_t5({name: p.grad for name, p in theirs.named_parameters()}, theirs.config)
    for name, parameter in ours_by_name(ours).items():
        wanted = gradients[name]
        scale = float(wanted.abs().max())
        # The loss and the bias tables are computed in float32 whatever the weights are.
        assert torch.allclose(parameter.grad, wanted, rtol=1e-4, atol=5e-6 * scale), name
