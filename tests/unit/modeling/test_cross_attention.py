"""Queries and keys that cross attention hands on, against products written out."""

import pytest
import torch
import torch.nn.functional as F

from megatron.modeling.cross_attention import CrossAttention
from tests.oracles.one_process_model import build_decoder, recipe_of

HEADS, GROUPS, WIDTH = 4, 2, 4
MODEL = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": HEADS, "num_query_groups": GROUPS}


@pytest.mark.parametrize("normalization", ["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize("qk_layernorm", [False, True])
def test_queries_and_keys_are_normalised_per_head_where_that_is_asked_for(qk_layernorm, normalization):
    model = {**MODEL, "qk_layernorm": qk_layernorm, "normalization": normalization, "disable_bias_linear": True}
    recipe = recipe_of(model, max_positions=8, architecture="encoder_decoder", lengths=(8, 8))
    (attention,) = (part for part in build_decoder(recipe)[1].modules() if isinstance(part, CrossAttention))
    generator = torch.Generator().manual_seed(3)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    hidden, context = torch.randn(5, 2, 16, generator=generator), torch.randn(7, 2, 16, generator=generator)

    def normed(heads, name):
        if not qk_layernorm:
            return heads
        weights = dict(attention.named_parameters())
        weight, eps = weights[f"{name}.weight"], recipe.model.norm_epsilon
        if normalization == "RMSNorm":
            return F.rms_norm(heads, (WIDTH,), weight, eps)
        return F.layer_norm(heads, (WIDTH,), weight, weights[f"{name}.bias"], eps)

    queries = (hidden @ attention.linear_q.weight.T).view(5, 2, HEADS, WIDTH)
    keys, values = (context @ attention.linear_kv.weight.T).view(7, 2, GROUPS, 2, WIDTH).unbind(-2)
    query, key, value = attention.get_query_key_value_tensors(hidden, context)
    torch.testing.assert_close(query, normed(queries, "q_layernorm"))
    torch.testing.assert_close(key, normed(keys, "k_layernorm"))
    torch.testing.assert_close(value, values)
