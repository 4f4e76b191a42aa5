"""Decoders of all kinds leave with their own modelling file: a process that knows nothing of ours gets our numbers."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import exported_answers
import numpy as np
import pytest
import torch
from exported_answers import answers_of
from safetensors.torch import load_file, save_file

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.modeling_files import modeling_triarch
from megatron.conversion.registry import FAMILIES
from megatron.conversion.rules import expand
from megatron.data.collate import collate
from megatron.evaluation.generate import generate
from megatron.evaluation.options import GenerationOptions
from megatron.evaluation.prompt_rows import PromptRows
from megatron.modeling.options import ModelOptions
from megatron.records.example import SequencePair
from tests.oracles.one_process_model import DEVICE, build_decoder, one_process_grid, recipe_of

LENGTH = 40
NEW_TOKENS = 4
PREFIXES = (1, 13, 38)
PROMPTS = ([5, 6, 7], [50], list(range(1, 26)), [3, 3, 3, 3, 9])
SIZES = {"num_layers": 2, "hidden_size": 24, "num_attention_heads": 6}
SCALES = {"apply_layernorm_1p": True, "scale_embeddings": True}
RMS = {"normalization": "RMSNorm", "norm_epsilon": 1e-6, "disable_bias_linear": True}
RELATIVE = {
    "position_embedding_type": "relative",
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
}
# name: architecture, words, settings
CASES = {
    "like gpt2": ("causal_decoder", 101, SIZES),
    "alibi": (
        "causal_decoder",
        101,
        {**SIZES, "position_embedding_type": "alibi", "activation": "geglu", "num_query_groups": 3},
    ),
    "prefix, alibi": ("prefix_decoder", 128, {**SIZES, "position_embedding_type": "alibi", "activation": "relu"}),
    "prefix, of the study": (
        "prefix_decoder",
        101,
        {**SIZES, **RMS, **RELATIVE, "activation": "geglu_tanh", "scale_logits": True, "softmax_scale": 1.0},
    ),
    "relative": (
        "causal_decoder",
        101,
        {**SIZES, **RELATIVE, **SCALES, "qk_layernorm": True, "activation": "gelu_tanh"},
    ),
    "prefix, like qwen": (
        "prefix_decoder",
        101,
        {
            **SIZES,
            **RMS,
            **SCALES,
            "position_embedding_type": "rope",
            "rotary_percent": 0.5,
            "rotary_base": 500,
            "activation": "swiglu",
            "ffn_hidden_size": 72,
            "add_qkv_bias": True,
            "num_query_groups": 2,
            "untie_embeddings_and_output_weights": True,
        },
    ),
    "no positions, wide heads": (
        "causal_decoder",
        130,
        {**SIZES, **RMS, "position_embedding_type": "none", "qk_layernorm": True, "kv_channels": 12},
    ),
    "prefix, learned": (
        "prefix_decoder",
        101,
        {**SIZES, "untie_embeddings_and_output_weights": True, "hidden_dropout": 0.1, "attention_dropout": 0.1},
    ),
}


LONGEST = max(map(len, PROMPTS))
GIVEN = {
    "tokens": torch.from_numpy(np.random.default_rng(0).integers(2, 100, (len(PREFIXES), LENGTH))),
    "lengths": torch.tensor(PREFIXES),
    "prompts": torch.tensor([[0] * (LONGEST - len(prompt)) + prompt for prompt in PROMPTS]),
    "sizes": torch.tensor([len(prompt) for prompt in PROMPTS]),
    "new": torch.tensor(NEW_TOKENS),
}


def described_case(case):
    architecture, vocabulary_size, settings = CASES[case]
    return DescribedModel(
        architecture=architecture,
        model=ModelOptions(**settings),
        vocabulary_size=vocabulary_size,
        max_positions=LENGTH,
        end_token=1,
    )


def random_model(described):
    """Our model with large weights, so that every part of it has a say; the padding of its tables is zero."""
    recipe = recipe_of(
        {},
        max_positions=LENGTH,
        vocabulary_size=described.vocabulary_size,
        architecture=described.architecture,
    )
    _, ours = build_decoder(recipe.__class__(**{**vars(recipe), "model": described.model}))
    torch.manual_seed(5)
    for name, parameter in ours.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, 0.2)
        if name in ("embedding.word_embeddings.weight", "output_layer.weight"):
            parameter.data[described.vocabulary_size :] = 0
    return ours.eval()


def exported(described, ours, folder):
    """What an export consists of, without the tokenizer."""
    family = FAMILIES["triarch_decoder"]
    assert [*family.faults(described)] == []
    parameters = dict(ours.named_parameters())
    tensors = {}
    for pair in expand(family.rules(described), described):
        tensors |= pair.to_theirs(parameters.pop(pair.ours).detach())
    assert not parameters
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(family.config(described)))
    for name, content in family.files.items():
        (folder / name).write_text(content)
    return tensors


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """By case: (ours, its folder, what the modelling file in this process answers to GIVEN)."""
    root = tmp_path_factory.mktemp("exports")
    found = {}
    for number, case in enumerate(CASES):
        folder = root / str(number)
        folder.mkdir()
        ours = random_model(described_case(case))
        exported(described_case(case), ours, folder)
        theirs = modeling_triarch.TriarchForCausalLM.from_pretrained(folder).eval()
        found[case] = ours, folder, answers_of(theirs, GIVEN)
    return found


@pytest.mark.parametrize(
    "cases",
    [("prefix, of the study",), pytest.param([*CASES], marks=pytest.mark.slow)],
    ids=["one", "all"],
)
def test_a_process_without_our_code_gets_the_same(exports, cases, tmp_path):
    """The folder alone, found and run by transformers."""
    folders = [exports[case][1] for case in cases]
    for folder in folders:
        save_file(GIVEN, folder / "given")
    command = [sys.executable, exported_answers.__file__, *map(str, folders)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path), "PYTHONPATH": ""}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for case in cases:
        _, folder, answers = exports[case]
        got = load_file(folder / "answers")
        assert got.keys() == answers.keys()
        for name, answer in answers.items():
            assert torch.allclose(got[name], answer, rtol=0, atol=1e-6), (case, name)


def our_logits(case, ours, tokens, prefixes):
    """[b, s, vocabulary] of tokens [b, s] as rows of training, each with its own prefix."""
    architecture = ARCHITECTURES["prefix_decoder"]()  # a causal decoder's weights under a prefix decoder's mask
    rules = RowRules(seq_length=tokens.shape[1], end_token=1)
    rows = []
    for row, prefix in zip(tokens.numpy().astype(np.int32), prefixes, strict=True):
        targets = np.concatenate([row[prefix:], np.zeros(1, np.int32)])  # the last one is a label alone
        rows.append(architecture.arrange([SequencePair(row[:prefix], targets)], rules))
    with torch.no_grad():
        return ours(collate(rows)).transpose(0, 1)[..., : CASES[case][1]]


@pytest.mark.parametrize("case", CASES)
def test_logits_are_ours_with_and_without_a_prefix(exports, case):
    ours, _, answers = exports[case]
    causal = our_logits(case, ours, GIVEN["tokens"], [0, 0, 0])
    prefixed = our_logits(case, ours, GIVEN["tokens"], PREFIXES)
    scale = float(causal.std())
    assert scale > 0.1
    assert not torch.allclose(causal[2], prefixed[2], atol=0.01 * scale)
    for name, expected in (("causal", causal), ("lengths", prefixed), ("types", prefixed)):
        assert torch.allclose(answers[name], expected, rtol=1e-5, atol=1e-5 * max(1.0, scale)), name


@pytest.mark.parametrize("case", CASES)
def test_padding_on_either_side_changes_nothing(exports, case):
    _, _, answers = exports[case]
    for side in ("left", "right"):
        assert torch.allclose(answers[side], answers["single"], rtol=1e-5, atol=3e-5), side


@pytest.mark.parametrize("case", CASES)
def test_generation_reads_prompts_both_ways_and_writes_from_the_left(exports, case):
    """Greedy tokens of a cache are those of a pass over the whole text for each, and our own command's."""
    ours, _, answers = exports[case]
    architecture, vocabulary_size, _ = CASES[case]
    assert torch.equal(answers["cache"], answers["recomputed"])
    for name in ("alone", "alone recomputed"):  # without padding transformers drops the mask
        assert torch.equal(answers[name], answers["cache"][0, -NEW_TOKENS:])
    assert torch.equal(answers["beams"], answers["beams recomputed"])
    is_prefix = architecture == "prefix_decoder"
    assert torch.equal(answers["cache"], answers["from the left"]) != is_prefix
    rules = RowRules(seq_length=LENGTH, end_token=vocabulary_size + 1)
    written = generate(
        [ours],
        one_process_grid(),
        DEVICE,
        PROMPTS,
        GenerationOptions(max_new_tokens=NEW_TOKENS, temperature=0.0),
        PromptRows(
            architecture=ARCHITECTURES[architecture](), rules=rules, reads_running_text=False, ends_inputs=False
        ),
        vocabulary_size=vocabulary_size,
    )
    assert answers["cache"][:, -NEW_TOKENS:].tolist() == written


@pytest.mark.parametrize("case", CASES)
def test_it_comes_back_as_it_was(tmp_path, case):
    family, described = FAMILIES["triarch_decoder"], described_case(case)
    ours = random_model(described)
    tensors = exported(described, ours, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    again = family.describe(config, tensors)
    assert again.canonical_model() == described.canonical_model()
    assert (again.architecture, again.max_positions, again.end_token) == (described.architecture, LENGTH, 1)
    assert family.config(again) == config
    parameters = dict(ours.named_parameters())
    for pair in expand(family.rules(again), again):
        assert torch.equal(pair.to_ours(tensors), parameters[pair.ours]), pair.ours


@pytest.fixture(scope="module")
def loaded():
    """The modelling file's classes in this process, for what needs no weights of ours."""
    torch.manual_seed(7)
    config = modeling_triarch.TriarchConfig(
        vocab_size=60,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
        decoder_type="prefix_decoder",
        bidirectional_prompts=True,
        position_embedding_type="relative",
        initializer_range=0.3,
    )
    return modeling_triarch.TriarchForCausalLM(config).eval()


@torch.no_grad()
def test_texts_may_be_read_in_pieces(loaded):
    tokens = torch.arange(2, 22)[None]
    whole = loaded(tokens, prefix_lengths=torch.tensor([8])).logits
    first = loaded(tokens[:, :9], prefix_lengths=torch.tensor([8]))
    second = loaded(tokens[:, 9:], prefix_lengths=torch.tensor([8]), past_key_values=first.past_key_values)
    assert torch.allclose(torch.cat([first.logits, second.logits], 1), whole, atol=1e-5)
    assert torch.allclose(loaded(tokens, logits_to_keep=3, prefix_lengths=torch.tensor([8])).logits, whole[:, -3:])


@torch.no_grad()
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(("length", "named"), [(12, False), (5, True), (0, True)])
def test_generation_steps_are_passes_over_the_text_with_its_prefix(loaded, length, named, use_cache):
    """The prompt is the prefix unless another one is named, and new tokens never belong to it."""
    prompt = torch.arange(2, 14)[None]
    prefix = torch.tensor([length])
    written = loaded.generate(
        prompt,
        **({"prefix_lengths": prefix} if named else {}),
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        use_cache=use_cache,
        output_logits=True,
        return_dict_in_generate=True,
    )
    for step, logits in enumerate(written.logits):
        seen = written.sequences[:, : 12 + step]
        assert torch.allclose(logits, loaded(seen, prefix_lengths=prefix).logits[:, -1], atol=1e-5)


def test_losses_shift_labels_and_gradients_reach_every_weight(loaded):
    tokens = torch.arange(2, 22)[None]
    labels = tokens.masked_fill(tokens < 10, -100)
    out = loaded(tokens, labels=labels, prefix_lengths=torch.tensor([8]))
    logits = loaded(tokens, prefix_lengths=torch.tensor([8])).logits
    expected = -logits[0, 7:-1].log_softmax(-1).gather(1, tokens[0, 8:, None]).mean()
    assert torch.allclose(out.loss, expected, atol=1e-5)
    out.loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in loaded.parameters())
    by_count = loaded(tokens, labels=labels, prefix_lengths=torch.tensor([8]), num_items_in_batch=24)
    assert torch.allclose(by_count.loss, expected / 2, atol=1e-5)


def test_what_the_class_does_not_take_is_said(loaded):
    tokens = torch.arange(2, 10)[None]
    with pytest.raises(ValueError, match="token_type_ids or prefix_lengths, not both"):
        loaded(tokens, token_type_ids=torch.ones_like(tokens), prefix_lengths=torch.tensor([2]))
    with pytest.raises(ValueError, match=r"attention_mask must be \[1, 8\], is \[1, 7\]"):
        loaded(tokens, attention_mask=torch.ones(1, 7))
    with pytest.raises(TypeError, match="does not take output_attentions"):
        loaded(tokens, output_attentions=True)
    with pytest.raises(ValueError, match="a cache that grows"):
        loaded.generate(tokens, max_new_tokens=2, cache_implementation="static")
    assert loaded(tokens, output_attentions=None, return_dict=False)[0].shape == (1, 8, 60)


def test_lm_eval_scores_from_left_to_right_and_writes_after_prompts_read_both_ways(tmp_path):
    """What `lm_eval --model hf` makes of a prefix decoder's export: it never says where a context ends."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    case = "prefix, of the study"
    ours = random_model(described_case(case))
    exported(described_case(case), ours, tmp_path)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1} | {f"w{n}": n for n in range(2, 101)}, unk_token="w2"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    judge = HFLM(
        pretrained=modeling_triarch.TriarchForCausalLM.from_pretrained(tmp_path),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>"),
        max_length=LENGTH,
        batch_size=2,
    )
    pairs = [([5, 6, 7], [9, 10]), ([4], [3]), ([9, 9, 9, 9, 8, 8], [7, 6, 5])]
    texts = [tuple(" ".join(f"w{token}" for token in part) for part in pair) for pair in pairs]
    asked = [Instance("loglikelihood", {}, (context, f" {rest}"), 0) for context, rest in texts]
    for (context, rest), (score, _) in zip(pairs, judge.loglikelihood(asked, disable_tqdm=True), strict=True):
        logits = our_logits(case, ours, torch.tensor([context + rest]), [0])[0].double().log_softmax(-1)
        expected = logits[len(context) - 1 : -1].gather(1, torch.tensor(rest)[:, None]).sum()
        assert score == pytest.approx(float(expected), abs=1e-4)
    steps = {"until": ["</s>"], "max_gen_toks": 4, "do_sample": False}
    asked = [Instance("generate_until", {}, (context, steps), 0) for context, _ in texts]
    for (context, _), written in zip(pairs, judge.generate_until(asked, disable_tqdm=True), strict=True):
        text = context + [int(word[1:]) for word in written.split()]
        assert len(text) == len(context) + 4
        logits = our_logits(case, ours, torch.tensor([text]), [len(context)])[0]
        assert logits[len(context) - 1 : -1].argmax(-1).tolist() == text[len(context) :]


def test_a_prefix_decoder_becomes_a_causal_folder_when_asked():
    described = described_case("prefix, learned")
    gpt2 = FAMILIES["gpt2"]
    (fault,) = gpt2.faults(described)
    assert fault == "--family gpt2 holds causal_decoder, and this is a prefix_decoder."
    assert gpt2.holds_as_causal(described)
    assert [*gpt2.faults(described, by_name=True)] == []
    assert not gpt2.holds_as_causal(described_case("like gpt2"))
    assert not FAMILIES["triarch_decoder"].holds_as_causal(described)


def test_a_prefix_decoder_that_never_had_inputs_reads_prompts_from_left_to_right():
    family, usual = FAMILIES["triarch_decoder"], described_case("prefix, alibi")
    for reads_running_text in (False, True):
        config = family.config(replace(usual, reads_running_text=reads_running_text))
        assert config["bidirectional_prompts"] is not reads_running_text
        assert family.describe(config, ()).reads_running_text is reads_running_text
    causal = described_case("alibi")
    assert not family.config(causal)["bidirectional_prompts"]
