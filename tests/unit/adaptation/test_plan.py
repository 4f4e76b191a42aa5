"""Every weight of every target has a source of its shape, in real models of all architectures."""

import itertools

import pytest
import torch

from megatron.adaptation.options import AdaptationOptions
from megatron.adaptation.plan import HEAD_TABLE, WORD_TABLE, make_plan
from megatron.layout.initial_weights import global_names
from megatron.modeling.options import ModelOptions
from tests.oracles.one_process_model import build_decoder, recipe_of

ARCHITECTURES = ("causal_decoder", "prefix_decoder", "encoder_decoder")
SHAPE = {"num_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "num_query_groups": 2}
FORMS = {
    "learned": {},
    "relative": {"position_embedding_type": "relative", "activation": "geglu", "disable_bias_linear": True},
    "rope": {
        "position_embedding_type": "rope",
        "normalization": "RMSNorm",
        "untie_embeddings_and_output_weights": True,
    },
    "alibi": {"position_embedding_type": "alibi", "qk_layernorm": True},
}


def shapes_of(architecture: str, form: str) -> dict[str, torch.Size]:
    recipe = recipe_of({**SHAPE, **FORMS[form]}, max_positions=8, architecture=architecture, lengths=(8, 8))
    return {name: parameter.shape for name, parameter in global_names(build_decoder(recipe)[1])}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("before", "after"), itertools.product(ARCHITECTURES, repeat=2))
def test_every_weight_has_a_source_of_its_shape(before: str, after: str, form: str) -> None:
    model = ModelOptions(**SHAPE, **FORMS[form])
    source, target = shapes_of(before, form), shapes_of(after, form)
    choices = [AdaptationOptions(to=after)]
    if before == "encoder_decoder" != after:
        choices.append(AdaptationOptions(to=after, from_stack="encoder"))
    for options in choices:
        plan = make_plan(before, options, model, model)
        for name, shape in target.items():
            found = plan.source_of(name)
            assert found is not None, name
            whole = torch.empty(source[found.name])
            taken = whole if found.index is None else whole.index_select(found.dim, found.index)
            assert taken.shape == shape, name


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_tables_of_a_stacks_layers_go_to_those_of_a_decoder(stack: str) -> None:
    model = ModelOptions(**SHAPE, **FORMS["relative"], relative_bias_per_layer=True)
    plan = make_plan("encoder_decoder", AdaptationOptions(to="causal_decoder", from_stack=stack), model, model)
    behind = "layers.1.self_attention.core_attention.relative_bias.weight"
    source = plan.source_of(f"decoder.{behind}")
    assert source is not None and (source.name, source.dim) == (f"{stack}.{behind}", 1)
    assert (source.index is None) == (stack == "decoder")  # an encoder's buckets lie otherwise


def test_projections_that_learned_behind_norms_keep_them_in_cross_attention() -> None:
    model = ModelOptions(**SHAPE, **FORMS["alibi"])
    plan = make_plan("causal_decoder", AdaptationOptions(to="encoder_decoder"), model, model)
    norms = [name for name in shapes_of("encoder_decoder", "alibi") if "cross_attention" in name and "norm" in name]
    assert len(norms) == 2 * 2 * 2  # of queries and keys in two layers, weight and bias
    for name in norms:
        source = plan.source_of(name)
        assert source is not None and source.name == name.replace("cross_attention", "self_attention")


def test_drawn_cross_attention_has_no_source_and_all_else_has() -> None:
    model = ModelOptions(**SHAPE)
    plan = make_plan("causal_decoder", AdaptationOptions(to="encoder_decoder", cross_attention="drawn"), model, model)
    drawn = {name for name in shapes_of("encoder_decoder", "learned") if plan.source_of(name) is None}
    assert drawn and all("cross_att" in name for name in drawn)
    assert {name.split(".")[3] for name in drawn} == {"cross_attention", "pre_cross_attn_layernorm"}


def test_decoders_of_one_form_pass_every_name_through() -> None:
    model = ModelOptions(**SHAPE)
    plan = make_plan("causal_decoder", AdaptationOptions(to="prefix_decoder"), model, model)
    for name in shapes_of("prefix_decoder", "learned"):
        source = plan.source_of(name)
        assert source is not None and source.name == name and source.index is None


def test_a_head_of_its_own_begins_as_the_table_of_words() -> None:
    tied, untied = ModelOptions(), ModelOptions(untie_embeddings_and_output_weights=True)
    options = AdaptationOptions(to="prefix_decoder")
    source = make_plan("causal_decoder", options, tied, untied).source_of(HEAD_TABLE)
    assert source is not None and source.name == WORD_TABLE
    source = make_plan("causal_decoder", options, untied, untied).source_of(HEAD_TABLE)
    assert source is not None and source.name == HEAD_TABLE
