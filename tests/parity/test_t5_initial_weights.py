"""--init-method t5 draws weights as wide as those of a fresh T5 of transformers, projection by projection."""

import pytest
import torch
import transformers
from transformers_weights import from_t5

from megatron.layout.initial_weights import global_names
from megatron.modeling.stacked_projections import stacked_widths
from tests.oracles.one_process_model import build_decoder, recipe_of

WORDS, HIDDEN, HEADS, HEAD, FEED_FORWARD = 512, 96, 6, 24, 160
MODEL = {
    "num_layers": 2,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "kv_channels": HEAD,
    "ffn_hidden_size": FEED_FORWARD,
    "normalization": "RMSNorm",
    "position_embedding_type": "relative",
    "disable_bias_linear": True,
    "init_method": "t5",
}
THEIRS = {"vocab_size": WORDS, "d_model": HIDDEN, "d_kv": HEAD, "d_ff": FEED_FORWARD, "num_heads": HEADS}
VERSIONS = {
    "t5": ({"feed_forward_proj": "relu"}, {"activation": "relu"}),
    "t5-1.1": (
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        {"activation": "geglu_tanh", "untie_embeddings_and_output_weights": True},
    ),
}


def projections(name, weight, options):
    """Each block of rows of a matrix by itself, cut by hand: groups of query rows, a key head and a value head ..."""
    if "linear_qkv" in name:
        return [weight.view(HEADS, 3, HEAD, HIDDEN)[:, part] for part in range(3)]
    if "linear_kv" in name:
        return [weight.view(HEADS, 2, HEAD, HIDDEN)[:, part] for part in range(2)]
    assert stacked_widths(options, name) is None or "linear_fc1" in name
    return weight.chunk(2) if "linear_fc1" in name and options.is_gated else [weight]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_projection_is_as_wide_as_in_transformers(version):
    theirs_changed, ours_changed = VERSIONS[version]
    torch.manual_seed(3)
    config = transformers.T5Config(num_layers=2, decoder_start_token_id=0, **THEIRS, **theirs_changed)
    theirs = transformers.T5ForConditionalGeneration(config)
    if "tie_word_embeddings" not in theirs_changed:
        theirs.lm_head = None  # tied: one table
    expected = from_t5(dict(theirs.named_parameters()), config)
    recipe = recipe_of(
        {**MODEL, **ours_changed},
        max_positions=32,
        vocabulary_size=WORDS,
        architecture="encoder_decoder",
        lengths=(32, 32),
    )
    _, ours = build_decoder(recipe)
    # transformers ties the head of a fresh T5 1.1 as well; T5X draws its own at 1, like the table of words.
    expected.setdefault("output_layer.weight", expected["embedding.word_embeddings.weight"])
    names = set()
    for name, weight in global_names(ours):
        names.add(name)
        if weight.dim() == 1:
            assert (weight == 1).all() and (expected[name] == 1).all(), name
            continue
        pairs = zip(
            projections(name, weight, recipe.model), projections(name, expected[name], recipe.model), strict=True
        )
        for part, (mine, other) in enumerate(pairs):
            # Five standard errors of the ratio of two samples' deviations.
            error = 5 / mine.numel() ** 0.5
            assert float(mine.std() / other.std()) == pytest.approx(1, abs=error), (name, part)
    assert names | {"output_layer.weight"} == expected.keys()
