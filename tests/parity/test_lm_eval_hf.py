"""Our class of lm-eval beside its own class `hf`, on the same weights and tokens, and beside models written out."""

from dataclasses import replace
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from exported_folder import export_tensors
from families import LENGTH, copy_weights, make_theirs
from lm_eval.models.huggingface import HFLM
from test_transformers_t5 import LENGTHS, make_both
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.basics.errors import RunFault, UserError
from megatron.conversion.registry import FAMILIES
from megatron.evaluation.answering_model import TrainedModel
from megatron.evaluation.encoded_prompts import encode_tasks
from megatron.evaluation.generate import generate
from megatron.evaluation.lm_eval_adapter import TriarchLM, exported_model
from megatron.evaluation.lm_eval_answers import ExportedModel
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.prompted_tasks import PromptedExamples, PromptedTask
from megatron.evaluation.score import score
from megatron.evaluation.t0_eval import score_tasks
from megatron.prompting.mixture import HeldOutTask
from megatron.prompting.template import Prompted, Template
from tests.oracles.gpt2_by_hand import gpt2_logits
from tests.oracles.one_process_model import DEVICE, VOCABULARY, build_decoder, one_process_grid, recipe_of

GPT2 = {"num_layers": 3, "hidden_size": 48, "num_attention_heads": 4, "activation": "gelu_tanh"}
END = 1
WORDS = ["<pad>", "<end>", *(f"w{number}" for number in range(VOCABULARY - 2))]


class Words:
    """The same tokenizer as ours are used."""

    eod_id = END

    def __init__(self, theirs):
        self.theirs = theirs

    def encode(self, text):
        return self.theirs.encode(text, add_special_tokens=False)

    def encode_batch(self, texts):
        return [np.array(self.encode(text), np.int32) for text in texts]

    def decode(self, ids):
        return self.theirs.decode(ids, skip_special_tokens=True)


def tokenizer_of_words(ends_texts=False):
    """Theirs. ends_texts: an end token stands behind every text, as T5's tokenizers put it there."""
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends_texts:
        backend.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", END)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")


def our_class(model, architecture, rules, **reading):
    rows = PromptRows(architecture=ARCHITECTURES[architecture](), rules=rules, **reading)
    place = ([model], one_process_grid(), DEVICE)
    return TriarchLM(
        partial(score, *place, prompt_rows=rows, vocabulary_size=VOCABULARY),
        lambda prompts, options, stop: generate(*place, prompts, options, rows, vocabulary_size=VOCABULARY, stop=stop),
        Words(tokenizer_of_words()),
        rows,
        micro_batch_size=3,
    )


@pytest.fixture(scope="module")
def gpt2():
    """(transformers' model, ours) with the same weights."""
    theirs = make_theirs("gpt2", torch.float32).eval()
    for parameter in theirs.transformer.h.parameters():
        parameter.data *= 3 if parameter.dim() > 1 else 1  # else contexts say little
    _, ours = build_decoder(recipe_of(GPT2, max_positions=LENGTH))
    copy_weights("gpt2", theirs, ours)
    return theirs, ours


@pytest.fixture(scope="module", params=["gpt2", "t5", "t5-1.1", "t5-1.1 exported"])
def both(request, gpt2, tmp_path_factory):
    """(lm-eval's class, ours) around the same model.

    1.1 has a head of its own, which plain hf ties once more, but for that of our exports.
    """
    if request.param == "gpt2":
        theirs, model = gpt2
        rules = RowRules(seq_length=LENGTH, end_token=END)
        ours = our_class(model, "causal_decoder", rules, reads_running_text=True, ends_inputs=False)
        return HFLM(pretrained=theirs, tokenizer=tokenizer_of_words(), batch_size=4, device="cpu"), ours
    model, theirs = make_both(request.param.split()[0])
    theirs.config.n_positions = LENGTHS[0]
    rules = RowRules(seq_length=LENGTHS[0], decoder_seq_length=LENGTHS[1], end_token=END, start_token=0)
    ours = our_class(model.float(), "encoder_decoder", rules, reads_running_text=False, ends_inputs=True)
    if request.param == "t5":
        return HFLM(pretrained=theirs.float(), tokenizer=tokenizer_of_words(True), batch_size=4, device="cpu"), ours
    folder = tmp_path_factory.mktemp("export")
    tokenizer_of_words(True).save_pretrained(folder)
    if request.param == "t5-1.1 exported":
        described = FAMILIES["t5"].describe(theirs.config.to_dict(), theirs.state_dict())
        export_tensors(FAMILIES["t5"], replace(described, dtype="float32"), theirs.state_dict(), folder)
        return HFLM(pretrained=str(folder), batch_size=4, device="cpu"), ours
    theirs.float().save_pretrained(folder)
    return exported_model(folder, runs_its_code=False, batch_size=4, device="cpu"), ours


def texts(count, seed, longest):
    rng = np.random.default_rng(seed)
    return [
        " ".join(WORDS[token] for token in rng.integers(2, VOCABULARY, rng.integers(1, longest))) for _ in range(count)
    ]


def requests_of(*arguments):
    return [SimpleNamespace(args=argument, arguments=argument) for argument in arguments]


def pairs_of_texts():
    """Contexts that fit, that are empty, and that lose tokens from the left; what comes behind them."""
    contexts = [*texts(12, 1, 30), "", *texts(2, 2, 3 * max(LENGTHS))]
    return [(context, f" {rest}") for context, rest in zip(contexts, texts(15, 3, 8), strict=True)]


def test_log_likelihoods_are_equal(both):
    hf, ours = both
    assert hf.backend == ours.backend
    wanted, got = (lm.loglikelihood(requests_of(*pairs_of_texts()), disable_tqdm=True) for lm in (hf, ours))
    for (ours_value, ours_greedy), (value, greedy) in zip(got, wanted, strict=True):
        assert ours_value == pytest.approx(value, abs=1e-4)
        assert ours_greedy == greedy


def test_a_prefix_decoder_reads_contexts_both_ways(gpt2):
    """Against float64 with the dense mask; lm-eval's own class has none."""
    theirs, model = gpt2
    rules = RowRules(seq_length=LENGTH, end_token=END)
    ours = our_class(model, "prefix_decoder", rules, reads_running_text=False, ends_inputs=False)
    pairs = [(context, rest) for context, rest in pairs_of_texts() if 0 < len(context.split()) < LENGTH - 8]
    got = ours.loglikelihood(requests_of(*pairs))
    for (value, _), (context, rest) in zip(got, pairs, strict=True):
        given, tokens = len(context.split()), [WORDS.index(word) for word in f"{context} {rest}".split()]
        mask = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
        mask[:given, :given] = True
        logits = gpt2_logits(theirs, torch.tensor(tokens), mask)[given - 1 : -1].log_softmax(-1)
        wanted = logits[range(len(tokens) - given), tokens[given:]].sum()
        assert value == pytest.approx(float(wanted), abs=1e-4)


def test_whole_texts_are_equal(both):
    """An encoder-decoder's as far as they fit the decoder's row: behind it, hf's encoder reads a single token."""
    hf, ours = both
    whole = [(text,) for text in texts(6, 4, LENGTHS[1] - 1 if ours.backend == "seq2seq" else 3 * LENGTH)]
    wanted, got = (lm.loglikelihood_rolling(requests_of(*whole), disable_tqdm=True) for lm in (hf, ours))
    assert got == pytest.approx(wanted, rel=1e-6, abs=1e-4)


def test_what_they_write_is_equal(both):
    hf, ours = both
    prompts = texts(5, 5, 20)
    settings = {"until": ["w7", "w30"], "max_gen_toks": 12, "do_sample": False}
    wanted, got = (
        lm.generate_until(requests_of(*((prompt, dict(settings)) for prompt in prompts)), disable_tqdm=True)
        for lm in (hf, ours)
    )
    if ours.backend == "seq2seq":  # hf allows it as many more tokens as the longest context has
        wanted = [" ".join(text.split()[:12]) for text in wanted]
        got = [text.strip() for text in got]
    assert got == wanted


def t0_tasks(questions, num_written):
    """A task with a prompt of choices and one whose answers are written."""
    inputs = texts(questions, 6, 20)
    choices = [tuple(texts(3, 7 + number, 6)) for number in range(questions)]
    template = Template("some/set", "ask", "a ||| b", "c", True, False, ("Squad",), "ask", "")
    ranked = [(n, Prompted(inputs[n], (choices[n][n % 3],), choices[n])) for n in range(questions)]
    written = [(n, Prompted(text, (text.split()[0],), None)) for n, text in enumerate(inputs[:num_written])]
    prompts = (
        PromptedExamples(template, ("accuracy", "accuracy_per_token"), ranked),
        PromptedExamples(replace(template, id="write", answer_choices=None), ("f1",), written),
    )
    held_out = HeldOutTask("mine", "mine", None, "validation", 2, Fraction(1, 3))
    return [PromptedTask(held_out, "here", prompts)]


def test_t0_eval_is_equal_for_an_exported_folder(both):
    """Log-likelihoods of each choice with its end token, and what is written behind inputs."""
    hf, lm = both
    ours = TrainedModel(lm._score, lm._generate, lm._tokenizer, lm._rows, 3)
    theirs = ExportedModel(hf)
    values = [[], []]
    for model, own in ((ours, values[0]), (theirs, values[1])):
        ((context,), (target,)) = model.encode_inputs(["w3 w4"]), model.encode_targets(["w5"])
        assert context.tolist() == [5, 6] and target.tolist() == [7, END]
        own += model.log_likelihoods([((5, 6), (7, END)), ((5, 6), (8, 9, END)), ((4,) * 20, (8, END))])
    # Of an encoder-decoder the inputs have an end token behind them: of ours rows add it, of theirs the tokenizer.
    assert values[0] == pytest.approx(values[1], abs=1e-4)
    tasks = t0_tasks(12, 3)
    found, wanted = (score_tasks(encode_tasks(tasks, model), model)[0].prompts for model in (ours, theirs))
    assert [prompt.measures for prompt in found] == [prompt.measures for prompt in wanted] and len(found) == 2
    behind = ours.encode_inputs(texts(7, 9, 15))
    first, second = (one.write(behind) for one in (ours, theirs))
    if lm.backend == "seq2seq":  # a folder does not know the length of the decoder's rows
        second = [text[: len(own)] for own, text in zip(first, second, strict=True)]
    assert first == second


def test_log_likelihoods_of_a_folder_in_bfloat16_are_sums_in_float32(gpt2, tmp_path):
    gpt2[0].save_pretrained(tmp_path)
    tokenizer_of_words().save_pretrained(tmp_path)
    lm = exported_model(tmp_path, runs_its_code=False, batch_size=1, device="cpu", dtype="bfloat16")
    inputs, target = (5, 6, 9), (8, 9, 4, 7, END)
    with torch.no_grad():
        logits = lm.model(torch.tensor([[*inputs, *target[:-1]]])).logits[0, len(inputs) - 1 :]
    assert logits.dtype == torch.bfloat16
    wanted = logits.double().log_softmax(-1)[range(len(target)), target].sum()
    model = ExportedModel(lm)
    assert model.log_likelihoods([(inputs, target)]) == pytest.approx([float(wanted)], abs=1e-4)
    lm.model.lm_head.weight.data[3] = torch.nan
    with pytest.raises(RunFault, match=r"not finite in torch\.bfloat16; use --dtype float32"):
        model.log_likelihoods([(inputs, target)])


@pytest.mark.parametrize(
    ("whole", "plain", "row"), [([1, 5, 2], [5], [1, 8, 2]), ([1], [], [1, 8]), ([1, 6, 2], [5], None)]
)
def test_what_a_tokenizer_puts_around_inputs(whole, plain, row):
    """Never the probe itself, where its ids change beside special tokens."""
    lm = SimpleNamespace(
        tok_encode=lambda _, add_special_tokens=True: whole if add_special_tokens else plain,
        tokenizer=SimpleNamespace(name_or_path="exports/first"),
        prefix_token_id=0,
    )
    if row is None:
        with pytest.raises(UserError, match="--hf exports/first: its tokenizer makes other ids of 'a'"):
            ExportedModel(lm)._read([8])
    else:
        assert ExportedModel(lm)._read([8]) == row


def test_inputs_that_are_cut_keep_their_start_token(gpt2):
    """Of an exported folder, whose tokenizer puts it there, as of the run, whose rows have it."""
    theirs, model = gpt2
    tokenizer = tokenizer_of_words()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<end> $A", special_tokens=[("<end>", END)]
    )
    hf = HFLM(pretrained=theirs, tokenizer=tokenizer, batch_size=4, device="cpu")
    rules = RowRules(seq_length=LENGTH, end_token=END, start_token=END, begins_with_start_token=True)
    lm = our_class(model, "causal_decoder", rules, reads_running_text=True, ends_inputs=False)
    ours, exported = TrainedModel(lm._score, lm._generate, lm._tokenizer, lm._rows, 3), ExportedModel(hf)
    long = " ".join(WORDS[2 + number % 30] for number in range(2 * LENGTH))
    question = Prompted(long, ("w1",), ("w1", "w2 w3"))
    (task,) = t0_tasks(3, 0)
    task.prompts[0].questions[:] = [(0, question)]
    found = []
    for one in (ours, exported):
        (encoded,) = encode_tasks([task], one)
        (asked,) = encoded.prompts[0].choices
        assert encoded.prompts[0].cut == 1 and len(asked.inputs) == one.longest_inputs(3)
        found.append(one.log_likelihoods([(tuple(asked.inputs[-9:].tolist()), tuple(asked.choices[1].tolist()))]))
        found.append(one.write([asked.inputs[-9:]]))
    assert found[0] == pytest.approx(found[2], abs=1e-4) and found[1] == found[3]
    read = [END, *asked.inputs.tolist()]
    choices = [choice.tolist() for choice in asked.choices]
    wanted = [value for value, _ in hf._loglikelihood_tokens([((c, ""), read, c) for c in choices], disable_tqdm=True)]
    inputs = tuple(asked.inputs.tolist())
    assert exported.log_likelihoods([(inputs, tuple(c)) for c in choices]) == pytest.approx(wanted, abs=1e-5)
    assert len(read) + len(choices[1]) == exported.lm.max_length + 1  # nothing is left for lm-eval to cut
