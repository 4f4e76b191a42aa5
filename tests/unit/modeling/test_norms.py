"""Our norms against the textbook in float64."""

import pytest
import torch

from megatron.modeling.norms import Norm
from tests.oracles.one_process_model import build_decoder, recipe_of


def config_of(normalization, **settings):
    model = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "normalization": normalization, **settings}
    return build_decoder(recipe_of(model, max_positions=4))[0]


@pytest.mark.parametrize("normalization", ["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize("is_zero_centred", [False, True])
def test_norms_are_the_textbooks(normalization, is_zero_centred):
    norm = Norm(config_of(normalization, apply_layernorm_1p=is_zero_centred), 16, eps=1e-3)
    torch.manual_seed(1)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    hidden = torch.randn(5, 3, 16) * 0.05 + 2.0
    wide = hidden.double()
    if normalization == "LayerNorm":
        wide = wide - wide.mean(-1, keepdim=True)
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-3).sqrt() * (norm.weight.double() + is_zero_centred)
    if normalization == "LayerNorm":
        expected = expected + norm.bias.double()
    assert (norm.bias is None) == (normalization == "RMSNorm")
    assert torch.allclose(norm(hidden).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalization", ["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_small_weights_count_beside_the_one_that_is_added(normalization, dtype):
    """bfloat16 has no number between 1 and 1.0078; still nearly all results are those of float64, rounded once."""
    norm = Norm(config_of(normalization, apply_layernorm_1p=True), 16, eps=1e-3).to(dtype)
    assert all((parameter == 0).all() for parameter in norm.parameters())
    torch.nn.init.constant_(norm.weight, 0.003)
    hidden = torch.randn(500, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    wide = hidden.double()
    if normalization == "LayerNorm":
        wide = wide - wide.mean(-1, keepdim=True)
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-3).sqrt() * (1 + norm.weight.double())
    got = norm(hidden)
    assert got.dtype == dtype
    if dtype == torch.bfloat16:
        assert (got == expected.to(dtype)).float().mean() > 0.99
    else:
        assert torch.allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_weights_say_whether_their_gradients_are_summed(sequence_parallel):
    config = config_of("LayerNorm")
    config.sequence_parallel = sequence_parallel
    norm = Norm(config, 16)
    assert [parameter.sequence_parallel for parameter in norm.parameters()] == [sequence_parallel] * 2
