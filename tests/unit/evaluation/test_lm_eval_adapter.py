"""Our model class under lm-eval itself, with a model whose probabilities are a table, against scores by hand."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from lm_eval.api.model import TemplateLM

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.basics.errors import UserError
from megatron.evaluation.lm_eval_adapter import TriarchLM, evaluate
from megatron.evaluation.lm_eval_sampling import sampling
from megatron.evaluation.lm_eval_tasks import TaskShelf
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.score import Score

END = 0
PAIRS = ["ab", "th", "e "]  # tokens of two letters, which may span the end of a context
VOCABULARY = 128 + len(PAIRS)
TABLE = np.log(np.random.default_rng(3).dirichlet(np.ones(VOCABULARY), VOCABULARY))  # [token before, next token]

TASK = """\
task: {name}
dataset_path: json
output_type: {kind}
validation_split: validation
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
{more}
"""
CHOICES = [
    {"question": "the cab", "choices": ["a", "bb"], "answer": 0},
    {"question": "abab", "choices": ["the", "x"], "answer": 1},
    {"question": "q", "choices": ["table", "th"], "answer": 0},
]


class Letters:
    """A tokenizer of letters and some pairs of them."""

    eod_id = END

    def encode(self, text):
        ids, place = [], 0
        while place < len(text):
            pair = text[place : place + 2]
            ids.append(128 + PAIRS.index(pair) if pair in PAIRS else ord(text[place]))
            place += 2 if pair in PAIRS else 1
        return ids

    def encode_batch(self, texts):
        return [np.array(self.encode(text), np.int32) for text in texts]

    def decode(self, ids):
        return "".join(PAIRS[token - 128] if token >= 128 else chr(token) for token in ids if token != END)


def by_hand(context, continuation):
    """(log-likelihood, whether greedy) of ids under the table, behind the end token where there is no context."""
    before = [*(context or [END]), *continuation][-len(continuation) - 1 : -1]
    values = [TABLE[old, new] for old, new in zip(before, continuation, strict=True)]
    return math.fsum(values), all(TABLE[old].argmax() == new for old, new in zip(before, continuation, strict=True))


def score(requests):
    return [Score(*by_hand(request.context, request.continuation)) for request in requests]


def generate(prompts, options, stop):
    assert options.temperature == 0
    results = []
    for prompt in prompts:
        written = []
        while len(written) < options.max_new_tokens and not stop(prompt, written):
            written.append(int(TABLE[[*prompt, *written][-1]].argmax()))
        results.append(written)
    return results


def model(architecture="causal_decoder", ends_inputs=False):
    rows = PromptRows(
        architecture=ARCHITECTURES[architecture](),
        rules=RowRules(seq_length=64, decoder_seq_length=32, end_token=END),
        reads_running_text=architecture == "causal_decoder",
        ends_inputs=ends_inputs,
    )
    return TriarchLM(score, generate, Letters(), rows, micro_batch_size=2)


def requests_of(*arguments):
    return [SimpleNamespace(args=argument) for argument in arguments]


@pytest.mark.parametrize("pair", [("the c", " ab"), ("the c ", "ab"), ("x", "theab"), (" ", "b")])
@pytest.mark.parametrize("architecture", ["causal_decoder", "encoder_decoder"])
def test_texts_are_parted_where_lm_eval_parts_them(architecture, pair):
    ours = model(architecture)
    (got,) = ours.loglikelihood(requests_of(pair))
    assert got == pytest.approx(by_hand(*TemplateLM._encode_pair(ours, *pair)))


def test_a_token_across_the_end_of_the_context_is_predicted():
    """`a` + `b` is one token: lm-eval's own way leaves nothing to score."""
    assert model().loglikelihood(requests_of(("xa", "b"))) == [by_hand([ord("x")], [128])]
    assert model().loglikelihood(requests_of(("", "b"), ("x", ""))) == [by_hand([], [ord("b")]), (0.0, True)]


def test_a_whole_text_is_one_request_without_a_context():
    assert model().loglikelihood_rolling(requests_of(("the cab",), ("",))) == [
        by_hand([], Letters().encode("the cab"))[0],
        0.0,
    ]


def test_generation_ends_before_the_first_stop():
    ours = model()
    whole = Letters().decode(
        generate([[ord("q")]], SimpleNamespace(temperature=0, max_new_tokens=9), lambda *_: False)[0]
    )
    end = whole[3:5]
    got = ours.generate_until(
        requests_of(
            ("q", {"until": [end], "max_gen_toks": 9}),
            ("q", {"until": ["no such text"], "max_gen_toks": 9, "do_sample": False}),
        )
    )
    assert got == [whole.split(end)[0], whole]


@pytest.mark.parametrize(
    ("settings", "temperature", "top_k", "top_p"),
    [
        ({}, 0.0, None, 1.0),
        ({"temperature": 0.7, "do_sample": False}, 0.0, None, 1.0),
        ({"do_sample": True}, 1.0, None, 1.0),
        ({"do_sample": True, "temperature": 0, "top_p": 0.95}, 0.0, None, 1.0),
        ({"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 0.95}, 0.7, None, 0.95),
        ({"do_sample": True, "temperature": 0.7, "top_k": 40}, 0.7, 40, 1.0),
    ],
)
def test_sampling_is_as_the_task_says(settings, temperature, top_k, top_p):
    options, until = sampling({"until": ["."], **settings}, most_new_tokens=9, micro_batch_size=2)
    assert (options.temperature, options.top_k, options.top_p) == (temperature, top_k, top_p)
    assert (options.max_new_tokens, until) == (9, ["."])


def test_what_generation_cannot_do_is_told_before_anything_is_scored(tmp_path):
    more = "generation_kwargs: {num_beams: 4, do_sample: true, temperature: -1}"
    shelf = shelf_of(tmp_path, "beams", "generate_until", more, [{"question": "q", "answer": "a"}])
    first, second = shelf.load(["beams"]).sampling_faults()
    assert first.startswith("--tasks beams: ") and "num_beams 4" in first and "temperature -1" in second


def shelf_of(folder, name, kind, more, examples):
    (folder / "tasks").mkdir()
    (folder / "tasks" / "task.yaml").write_text(TASK.format(name=name, kind=kind, more=more))
    (folder / "data" / name).mkdir(parents=True)
    lines = "".join(json.dumps(example) + "\n" for example in examples)
    (folder / "data" / name / "validation.jsonl").write_text(lines)
    return TaskShelf([name], [str(folder / "tasks")], folder / "data")


def results_of(shelf, name, ours=None):
    settings = {"limit": None, "num_fewshot": None, "batch_size": 2}
    return evaluate(ours or model(), shelf.load([name]), **settings)["results"][name]


def test_multiple_choice_equals_the_table(tmp_path):
    shelf = shelf_of(tmp_path, "tiny_choice", "multiple_choice", 'doc_to_choice: "{{choices}}"', CHOICES)
    encode = Letters().encode
    right = 0
    for example in CHOICES:
        before = encode(example["question"])
        sums = []
        for choice in example["choices"]:
            whole = encode(f"{example['question']} {choice}")
            sums.append(by_hand(whole[: len(before)], whole[len(before) :])[0])
        right += sums.index(max(sums)) == example["answer"]
    assert results_of(shelf, "tiny_choice")["acc,none"] == pytest.approx(right / len(CHOICES))


def test_perplexity_of_texts_equals_the_table(tmp_path):
    texts = [{"question": "", "answer": "the table abab"}, {"question": "", "answer": "x"}]
    shelf = shelf_of(tmp_path, "tiny_texts", "loglikelihood_rolling", "metric_list: [{metric: bits_per_byte}]", texts)
    nats = sum(by_hand([], Letters().encode(text["answer"]))[0] for text in texts)
    num_bytes = sum(len(text["answer"]) for text in texts)
    found = results_of(shelf, "tiny_texts")["bits_per_byte,none"]
    assert found == pytest.approx(-nats / num_bytes / math.log(2))


def test_lm_eval_s_own_command_is_sent_to_ours():
    from lm_eval.api.registry import get_model

    with pytest.raises(UserError, match=r"tools/evaluate\.py --load"):
        get_model("triarch").create_from_arg_string("load=runs/first")
