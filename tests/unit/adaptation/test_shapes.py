"""What may change between a checkpoint and what it becomes, and how a person is told."""

import pytest

from megatron.adaptation.options import AdaptationOptions
from megatron.adaptation.shapes import adapted_model, pair_faults, shape_faults
from megatron.basics.errors import UserError
from megatron.modeling.options import ModelOptions


def faults(kept: dict, wished: dict, to: str = "prefix_decoder") -> list[str]:
    return list(shape_faults(ModelOptions(**{**kept, **wished}), ModelOptions(**kept), to, "RUN"))


@pytest.mark.parametrize(
    ("wished", "flag"),
    [
        ({"hidden_size": 384}, "--hidden-size 384"),
        ({"num_layers": 3}, "--num-layers 3"),
        ({"num_attention_heads": 6}, "--num-attention-heads 6"),
        ({"ffn_hidden_size": 100}, "--ffn-hidden-size 100"),
        ({"normalization": "RMSNorm"}, "--normalization RMSNorm"),
        ({"activation": "swiglu"}, "--activation swiglu"),
        ({"position_embedding_type": "rope"}, "--position-embedding-type rope"),
        ({"max_position_embeddings": 99}, "--max-position-embeddings 99"),
    ],
)
def test_another_shape_is_one_sentence_that_names_flag_and_run(wished: dict, flag: str) -> None:
    (fault,) = faults({}, wished)
    assert fault.startswith(flag) and "RUN" in fault and fault.endswith(".")


@pytest.mark.parametrize(
    "wished",
    [
        {"hidden_dropout": 0.1},
        {"attention_backend": "sdpa"},
        {"make_vocab_size_divisible_by": 64},
        {"untie_embeddings_and_output_weights": True},
    ],
)
def test_what_changes_no_weight_is_free(wished: dict) -> None:
    assert faults({}, wished) == []


def test_a_head_of_its_own_cannot_be_tied() -> None:
    kept = {"untie_embeddings_and_output_weights": True}
    (fault,) = faults(kept, {"untie_embeddings_and_output_weights": False})
    assert "--untie-embeddings-and-output-weights" in fault


def test_depths_of_stacks() -> None:
    assert "--encoder-num-layers 3" in faults({"num_layers": 2}, {"encoder_num_layers": 3}, "encoder_decoder")[0]
    assert faults({"num_layers": 2}, {"encoder_num_layers": 2}, "encoder_decoder") == []


@pytest.mark.parametrize(("stack", "layers"), [(None, 4), ("decoder", 4), ("encoder", 3)])
def test_a_decoder_is_as_deep_as_the_stack_it_comes_from(stack: str | None, layers: int) -> None:
    model = ModelOptions(num_layers=9, encoder_num_layers=3, decoder_num_layers=4)
    settings = adapted_model("encoder_decoder", model, 16, AdaptationOptions(to="causal_decoder", from_stack=stack))
    assert ModelOptions(**settings).num_layers == layers
    assert settings["encoder_num_layers"] is settings["decoder_num_layers"] is None
    assert settings["max_position_embeddings"] == 16  # the learned table keeps its rows


def test_tables_of_layers_are_no_matter_of_a_decoder() -> None:
    model = ModelOptions(position_embedding_type="relative", relative_bias_per_layer=True)
    for to, kept in (("causal_decoder", False), ("encoder_decoder", True)):
        settings = adapted_model("encoder_decoder", model, 16, AdaptationOptions(to=to))
        assert settings["relative_bias_per_layer"] is kept


@pytest.mark.parametrize(
    ("source", "options", "word"),
    [
        ("causal_decoder", {"to": "prefix_decoder", "from_stack": "encoder"}, "--from-stack"),
        ("encoder_decoder", {"to": "encoder_decoder", "from_stack": "encoder"}, "--from-stack"),
        ("encoder_decoder", {"to": "causal_decoder", "cross_attention": "drawn"}, "--cross-attention"),
        ("encoder", {"to": "causal_decoder"}, "--load"),
    ],
)
def test_pairs_that_make_no_sense(source: str, options: dict, word: str) -> None:
    (fault,) = pair_faults(source, AdaptationOptions(**options))
    assert fault.startswith(word)


def test_the_target_must_be_named() -> None:
    with pytest.raises(UserError, match="--to is missing; name the architecture"):
        AdaptationOptions()
