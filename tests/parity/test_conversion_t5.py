"""T5 folders become our encoder-decoders and come back: logits equal transformers', tensors and configs are theirs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from exported_folder import export_tensors
from safetensors.torch import load_file, save_file

from megatron.architectures.encoder_decoder import EncoderDecoder
from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.basics.errors import UserError
from megatron.conversion.families.t5 import UNTIED
from megatron.conversion.load import plan_import
from megatron.conversion.registry import FAMILIES
from megatron.conversion.rules import expand
from megatron.data.collate import collate
from megatron.layout.initial_weights import global_names
from megatron.loop.setup import ModelRecipe
from megatron.records.example import SequencePair
from tests.oracles.one_process_model import build_decoder

LENGTHS = (40, 30)
SIZES = {
    "vocab_size": 101,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
}
CASES = {
    "t5 1.0": ("t5", SIZES),
    "t5 1.0, wide heads": ("t5", {**SIZES, "d_kv": 12, "vocab_size": 128, "num_decoder_layers": 1}),
    "t5 1.1": ("t5", {**SIZES, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "t5 1.1, uneven": (
        "t5",
        {**SIZES, "feed_forward_proj": "gated-silu", "tie_word_embeddings": False, "num_decoder_layers": 3},
    ),
    "umt5": ("umt5", {**SIZES, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "umt5, head without scale": ("umt5", {**SIZES, "feed_forward_proj": "gated-gelu", **UNTIED}),
    "umt5 plain, uneven": ("umt5", {**SIZES, "feed_forward_proj": "relu", "num_decoder_layers": 1, "d_kv": 12}),
}


def made_by_transformers(family, settings):
    """A random model of theirs, its vectors and heads too, so that nothing hides behind a one or a copy."""
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(family.model_type, **settings)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32).eval()
    if settings.get("tie_word_embeddings") is False:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    for stack in (model.encoder, model.decoder):
        stack.set_input_embeddings(model.shared)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.12)
    return model


def logits_of_ours(described, tensors, pairs, batch):
    recipe = ModelRecipe(
        architecture=ARCHITECTURES[described.architecture](),
        model=described.model,
        vocabulary_size=described.vocabulary_size,
        max_positions=described.max_positions,
        seed=1,
        lengths=LENGTHS,
    )
    _, ours = build_decoder(recipe, backend="fused_softmax")
    parameters = dict(global_names(ours))
    for pair in pairs:
        parameters.pop(pair.ours).data.copy_(pair.to_ours(tensors))
    assert not parameters
    ours.eval()
    with torch.no_grad():
        return ours(batch).transpose(0, 1)[..., : described.vocabulary_size]


def batch_of_pairs():
    rng = np.random.default_rng(0)
    rules = RowRules(seq_length=LENGTHS[0], decoder_seq_length=LENGTHS[1], end_token=1)
    examples = [[rng.integers(2, 100, length, dtype=np.int32) for length in LENGTHS] for _ in range(2)]
    return collate([EncoderDecoder().arrange([SequencePair(*example)], rules) for example in examples])


def converted(case):
    name, settings = CASES[case]
    family = FAMILIES[name]
    theirs = made_by_transformers(family, settings)
    described = family.describe(theirs.config.to_dict(), theirs.state_dict())
    return family, theirs, described


@pytest.mark.parametrize("case", CASES)
def test_a_folder_becomes_our_model_and_comes_back(case):
    family, theirs, described = converted(case)
    tensors = theirs.state_dict()
    assert [*family.faults(described)] == []
    pairs = expand(family.rules(described), described)

    batch = batch_of_pairs()
    with torch.no_grad():
        expected = theirs(input_ids=batch.encoder.tokens, decoder_input_ids=batch.tokens).logits
    assert expected.std() > 0.1
    got = logits_of_ours(described, tensors, pairs, batch)
    assert torch.allclose(got, expected, rtol=1e-5, atol=1e-5)

    back = {}
    for pair in pairs:
        back |= pair.to_theirs(pair.to_ours(tensors))
        assert [tuple(back[part].shape) for part in pair.theirs] == [*pair.shapes_of_theirs()]
    for part, tensor in back.items():
        assert torch.equal(tensor, tensors[part]), part
    assert back.keys() == tensors.keys() - (family.copies.keys() - back.keys())

    config = transformers.AutoConfig.for_model(**family.config(described))
    assert family.describe(config.to_dict(), tensors) == described
    was, now = theirs.config.to_dict(), config.to_dict()
    may_differ = {"architectures", "_name_or_path"}
    if family.written_copies(described):  # transformers' own folders of such models say that they are tied
        may_differ.add("tie_word_embeddings")
    assert {field for field in was if was[field] != now.get(field)} <= may_differ


@pytest.mark.parametrize("case", CASES)
def test_transformers_reads_what_is_written(case, tmp_path):
    """Its own loader decides which tables are copies, from the files alone, and ties what its config calls tied."""
    family, theirs, described = converted(case)
    plan = export_tensors(family, described, theirs.state_dict(), tmp_path)
    batch = batch_of_pairs()
    rows = {"input_ids": batch.encoder.tokens, "decoder_input_ids": batch.tokens}
    with torch.no_grad():
        expected = theirs(**rows).logits
        read = transformers.AutoModelForSeq2SeqLM.from_pretrained(str(tmp_path)).eval()
        assert torch.equal(read(**rows).logits, expected)
        model = described.model
        if not (model.scale_logits and model.untie_embeddings_and_output_weights):
            read.tie_weights()  # as lm-eval does
            assert torch.equal(read(**rows).logits, expected)
        if family.name == "t5" and plan.copies:  # for those who train it on
            tied = transformers.AutoModelForSeq2SeqLM.from_pretrained(str(tmp_path), tie_word_embeddings=True).eval()
            assert tied.encoder.embed_tokens.weight is tied.decoder.embed_tokens.weight is tied.shared.weight
            assert torch.equal(tied(**rows).logits, expected)


@pytest.mark.parametrize("case", ["t5 1.1", "umt5, head without scale"])
def test_copies_of_the_table(case, tmp_path):
    """An import takes folders with them and without them, and compares those that are there."""
    family, theirs, described = converted(case)
    plan = export_tensors(family, described, theirs.state_dict(), tmp_path)
    copies = [name for pair in plan.copies for name in pair.theirs]
    assert copies == ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    stored = load_file(tmp_path / "model.safetensors")
    without = {name: tensor for name, tensor in stored.items() if name not in copies}
    assert plan.parameters == sum(tensor.numel() for tensor in without.values())
    for tensors in (stored, without):
        save_file(tensors, tmp_path / "model.safetensors")
        read = plan_import(tmp_path, family=None, dtype=None)
        assert read.described == described
    stored[copies[1]][100, 31] += 1
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"{copies[1]} differs from shared.weight"):
        plan_import(tmp_path, family=None, dtype=None)
    del without["lm_head.weight"]
    save_file(without, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"no tensor lm_head\.weight"):
        plan_import(tmp_path, family=None, dtype=None)


def test_configs_that_no_model_follows():
    family, theirs, _ = converted("t5 1.0")
    for changed in ({"decoder_start_token_id": 5}, {"feed_forward_proj": "gated-relu"}, {"is_encoder_decoder": False}):
        with pytest.raises(UserError, match=f"config.json: {next(iter(changed))} .* has no counterpart"):
            family.describe({**theirs.config.to_dict(), **changed}, theirs.state_dict())
    contradictory = {**theirs.config.to_dict(), "dense_act_fn": "silu", "is_gated_act": True}
    with pytest.raises(UserError) as raised:
        family.describe(contradictory, theirs.state_dict())
    assert raised.value.faults == (
        "config.json: is_gated_act True is not that of feed_forward_proj 'relu', False; correct whichever is wrong.",
        "config.json: dense_act_fn 'silu' is not that of feed_forward_proj 'relu', 'relu'; correct whichever is wrong.",
    )


def test_models_that_no_folder_can_hold():
    family, _, described = converted("t5 1.1")

    def refused(**changed):
        (fault,) = family.faults(replace(described, model=replace(described.model, **changed)))
        return fault

    assert "--scale-logits with --untie" in refused(scale_logits=True)
    assert "--normalization LayerNorm" in refused(normalization="LayerNorm")
    assert "--softmax-scale unset" in refused(softmax_scale=None)
    assert "--activation geglu" in refused(activation="geglu")
    buckets = {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}
    assert "--position-embedding-type alibi" in refused(position_embedding_type="alibi", **buckets)
    assert "--num-query-groups 2" in refused(num_query_groups=2)
    assert "--relative-bias-per-layer" in refused(relative_bias_per_layer=True)
    umt5, _, layered = converted("umt5")
    (fault,) = umt5.faults(replace(layered, model=replace(layered.model, relative_bias_per_layer=False)))
    assert "--relative-bias-per-layer off" in fault
    tied = {"scale_logits": False, "untie_embeddings_and_output_weights": False}
    (fault,) = umt5.faults(replace(layered, model=replace(layered.model, **tied)))
    assert "--scale-logits off without --untie-embeddings-and-output-weights" in fault
    (fault,) = FAMILIES["llama"].faults(described)
    assert "encoder_decoder" in fault
