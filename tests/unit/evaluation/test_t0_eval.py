"""T0-Eval with a model whose probabilities are a table, against counts by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest

from megatron.basics.errors import UserError
from megatron.evaluation.encoded_prompts import encode_tasks
from megatron.evaluation.prompted_tasks import PromptedExamples, PromptedTask
from megatron.evaluation.t0_eval import score_tasks
from megatron.prompting.mixture import HeldOutTask
from megatron.prompting.template import Prompted, Template

END = 0
TABLE = np.log(np.random.default_rng(3).dirichlet(np.ones(128), 128))  # [letter before, next letter]


class Letters:
    """An AnsweringModel of letters, each of which depends on the one before it."""

    rule = "Letter by letter."
    new_tokens = 4

    def __init__(self, room=1000):
        self.room = room

    def encode_inputs(self, texts):
        return [np.array([ord(letter) for letter in text if letter != "~"], np.int32) for text in texts]

    def encode_targets(self, texts):
        return [np.append(ids, np.int32(END)) for ids in self.encode_inputs(texts)]

    def longest_inputs(self, new_tokens):
        return self.room - new_tokens

    def log_likelihoods(self, pairs):
        return [by_hand(inputs, rest) for inputs, rest in pairs]

    def write(self, inputs):
        self.written_behind = ["".join(map(chr, ids)) for ids in inputs]
        return [text[-1] * 2 for text in self.written_behind]


def by_hand(inputs, rest):
    before = [*inputs, *rest][-len(rest) - 1 : -1]
    return math.fsum(TABLE[old, new] for old, new in zip(before, rest, strict=True))


def template(name, choices="x", metrics=("Accuracy",)):
    return Template("some/set", name, "a ||| b", choices, True, False, metrics, name, "")


def prompt(name, questions):
    return PromptedExamples(template(name), ("accuracy", "accuracy_per_token"), [*enumerate(questions)])


def to_write(*questions):
    return PromptedExamples(template("write", None, ("Squad",)), ("exact_match", "f1"), [*enumerate(questions)])


def task(name, *prompts, random=Fraction(1, 2)):
    return PromptedTask(HeldOutTask(name, name, None, "validation", 1, random), f"DATA/{name}", prompts)


def scores_of(tasks, model):
    return score_tasks(encode_tasks(tasks, model), model)


CHOICES = ("ab", "cde")
QUESTIONS = [Prompted(inputs, (CHOICES[number % 2],), CHOICES) for number, inputs in enumerate("xyzw")]


def test_accuracies_are_those_of_the_table():
    questions = []
    for number, inputs in enumerate("abcdefghijklmnop"):
        choices = ("ab"[number % 2], "cdefgh"[number % 5 :])
        questions.append(Prompted(inputs, (choices[number % 3 % 2],), choices))
    (score,) = scores_of([task("mine", prompt("one", questions))], Letters())
    right = {"accuracy": [], "accuracy_per_token": []}
    for question in questions:
        sums = [by_hand([ord(question.inputs)], [*map(ord, choice), END]) for choice in question.choices]
        means = [value / (len(choice) + 1) for value, choice in zip(sums, question.choices, strict=True)]
        for metric, values in zip(right, (sums, means), strict=True):
            right[metric].append(question.choices[values.index(max(values))] == question.targets[0])
    measures = score.prompts[0].measures
    assert {metric: measured.value for metric, measured in measures.items()} == {
        metric: sum(answers) / 16 for metric, answers in right.items()
    }
    assert sum(right["accuracy"]) != sum(right["accuracy_per_token"])
    assert score.prompts[0].right == right
    assert score.prompts[0].examples == 16 and score.prompts[0].cut == 0


def test_what_tokens_cannot_tell_apart_is_skipped():
    questions = [*QUESTIONS, Prompted("x", ("a",), ("a", "a~")), Prompted("x", ("a",), ("a", "~"))]
    (score,) = scores_of([task("mine", prompt("one", questions))], Letters())
    skipped = score.prompts[0].prompt.skipped
    assert (score.prompts[0].examples, skipped.count) == (4, 2)
    assert skipped.first == "example 4 has choices that are the same to the tokenizer"
    with pytest.raises(UserError, match="4 of 4 examples cannot be scored, because example 0 has a choice of 4 tokens"):
        encode_tasks([task("mine", prompt("one", QUESTIONS))], Letters(room=4))
    with pytest.raises(
        UserError, match="1 of 1 examples cannot be scored, because example 0 has an answer of 4 tokens"
    ):
        encode_tasks([task("mine", to_write(Prompted("ask b", ("bb",), None)))], Letters(room=4))


def test_questions_are_the_same_each_time_they_are_encoded():
    tasks = [task("mine", prompt("one", [*QUESTIONS, Prompted("x", ("a",), ("a", "a~"))]))]
    counts = [
        (len(one.prompts[0].choices), one.prompts[0].prompt.skipped.count)
        for _ in range(2)
        for one in encode_tasks(tasks, Letters())
    ]
    assert counts == [(4, 1), (4, 1)] and len(tasks[0].prompts[0].questions) == 5


def test_long_inputs_lose_their_beginning_alike_for_all_choices():
    class Recorded(Letters):
        def log_likelihoods(self, pairs):
            self.pairs = pairs
            return super().log_likelihoods(pairs)

    model = Recorded(room=6)
    (score,) = scores_of([task("mine", prompt("one", [Prompted("long", ("ab",), CHOICES), *QUESTIONS]))], model)
    assert score.prompts[0].cut == 1
    assert [inputs for inputs, _ in model.pairs[:2]] == [(ord("n"), ord("g"))] * 2
    model = Recorded(room=9999)
    scores_of([task("mine", prompt("one", [Prompted("y" * 3000, ("ab",), CHOICES)]))], model)
    assert {len(inputs) for inputs, _ in model.pairs} == {1024}  # T0's length


@pytest.mark.parametrize(
    ("room", "inputs", "read"), [(7, "along", "ong"), (9999, "along", "along"), (9999, "x" + "y" * 1024, "y" * 1024)]
)
def test_long_inputs_lose_their_beginning_where_answers_are_written(room, inputs, read):
    model = Letters(room)
    (score,) = scores_of([task("mine", to_write(Prompted(inputs, ("gg",), None)))], model)
    assert model.written_behind == [read] and score.prompts[0].cut == (read != inputs)


def test_tasks_without_choices_are_written():
    writing = to_write(Prompted("ask b", ("no", "bb"), None), Prompted("ask c", ("no",), None))
    (score,) = scores_of([task("mine", writing, prompt("one", QUESTIONS))], Letters())
    assert {name: measured.value for name, measured in score.prompts[0].measures.items()} == {
        "exact_match": 0.5,
        "f1": 0.5,
    }
    assert score.prompts[1].measures.keys() == {"accuracy", "accuracy_per_token"}
    assert score.spreads["f1"].prompts == 1 and score.spreads["accuracy"].prompts == 1
