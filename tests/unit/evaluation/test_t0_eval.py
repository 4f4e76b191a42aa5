"""T0-Eval with a model whose probabilities are a table, and its reports, against counts by hand."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest

from megatron.basics.errors import UserError
from megatron.cli.evaluation_report import main as compare
from megatron.cli.evaluation_report import write_report
from megatron.evaluation.prompt_spread import Measured
from megatron.evaluation.prompted_tasks import PromptedExamples, PromptedTask
from megatron.evaluation.report import html_page, markdown
from megatron.evaluation.results import Results
from megatron.evaluation.t0_eval import PromptScore, TaskScore, entry_of, score_tasks
from megatron.evaluation.t0_report import t0_chart
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

    def write(self, texts):
        return [text[-1] * 2 for text in texts]


def by_hand(inputs, rest):
    before = [*inputs, *rest][-len(rest) - 1 : -1]
    return math.fsum(TABLE[old, new] for old, new in zip(before, rest, strict=True))


def template(name, choices="x", metrics=("Accuracy",)):
    return Template("some/set", name, "a ||| b", choices, True, False, metrics, name, "")


def prompt(name, questions):
    return PromptedExamples(template(name), ("accuracy", "accuracy_per_token"), [*enumerate(questions)])


def task(name, *prompts, random=Fraction(1, 2)):
    return PromptedTask(HeldOutTask(name, name, None, "validation", 1, random), f"DATA/{name}", prompts)


CHOICES = ("ab", "cde")
QUESTIONS = [Prompted(inputs, (CHOICES[number % 2],), CHOICES) for number, inputs in enumerate("xyzw")]


def test_accuracies_are_those_of_the_table():
    questions = []
    for number, inputs in enumerate("abcdefghijklmnop"):
        choices = ("ab"[number % 2], "cdefgh"[number % 5 :])
        questions.append(Prompted(inputs, (choices[number % 3 % 2],), choices))
    (score,) = score_tasks([task("mine", prompt("one", questions))], Letters())
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
    assert score.prompts[0].examples == 16 and score.prompts[0].cut == 0


def test_what_tokens_cannot_tell_apart_is_skipped():
    questions = [*QUESTIONS, Prompted("x", ("a",), ("a", "a~")), Prompted("x", ("a",), ("a", "~"))]
    (score,) = score_tasks([task("mine", prompt("one", questions))], Letters())
    skipped = score.prompts[0].prompt.skipped
    assert (score.prompts[0].examples, skipped.count) == (4, 2)
    assert skipped.first == "example 4 has choices that are the same to the tokenizer"
    with pytest.raises(UserError, match="4 of 4 examples cannot be scored, because example 0 has a choice of 4 tokens"):
        score_tasks([task("mine", prompt("one", QUESTIONS))], Letters(room=4))


def test_long_inputs_lose_their_beginning_alike_for_all_choices():
    class Recorded(Letters):
        def log_likelihoods(self, pairs):
            self.pairs = pairs
            return super().log_likelihoods(pairs)

    model = Recorded(room=6)
    (score,) = score_tasks([task("mine", prompt("one", [Prompted("long", ("ab",), CHOICES), *QUESTIONS]))], model)
    assert score.prompts[0].cut == 1
    assert [inputs for inputs, _ in model.pairs[:2]] == [(ord("n"), ord("g"))] * 2
    model = Recorded(room=9999)
    score_tasks([task("mine", prompt("one", [Prompted("y" * 3000, ("ab",), CHOICES)]))], model)
    assert {len(inputs) for inputs, _ in model.pairs} == {1024}  # T0's length


def test_tasks_without_choices_are_written():
    writing = PromptedExamples(
        template("write", None, ("Squad",)),
        ("exact_match", "f1"),
        [(0, Prompted("ask b", ("no", "bb"), None)), (1, Prompted("ask c", ("no",), None))],
    )
    (score,) = score_tasks([task("mine", writing, prompt("one", QUESTIONS))], Letters())
    assert {name: measured.value for name, measured in score.prompts[0].measures.items()} == {
        "exact_match": 0.5,
        "f1": 0.5,
    }
    assert score.prompts[1].measures.keys() == {"accuracy", "accuracy_per_token"}
    assert score.spreads["f1"].prompts == 1 and score.spreads["accuracy"].prompts == 1


def scored(name, accuracies, random, cut=0):
    """A task whose prompts have these accuracies."""
    prompts = [prompt(f"prompt {number}", QUESTIONS) for number in range(len(accuracies))]
    prompts[0].skipped.add(7, "an empty choice")
    measures = [{"accuracy": Measured(value, 0.03), "accuracy_per_token": Measured(0.5, 0.03)} for value in accuracies]
    scores = [PromptScore(*parts, cut) for parts in zip(prompts, measures, strict=True)]
    return TaskScore(task(name, *prompts, random=random), tuple(scores))


def results_of(name, *scores, missing=()):
    reasons = {task: f"DATA has nothing of {task}." for task in missing}
    entry = entry_of(scores, reasons, scoring_rule="Letter by letter.")
    return Results(name, json.loads(json.dumps({"results": {}, "t0_eval": entry, "triarch": {"name": name}})))


FIRST = results_of(
    "first",
    scored("one", [0.4, 0.5, 0.9], Fraction(1, 2)),
    scored("two", [0.3, 0.32], Fraction(1, 3), cut=3),
    missing=["three", "four"],
)
SECOND = results_of("second", scored("one", [0.6, 0.6, 0.7], Fraction(1, 2)))


def cells(page, *start):
    for line in page.splitlines():
        found = [cell.strip() for cell in line.strip("|").split("|")]
        if found[: len(start)] == [*start]:
            return found
    raise AssertionError(f"no line {start}")


def test_the_table_has_medians_spread_and_means():
    page = markdown([FIRST])
    assert cells(page, "one", "accuracy")[2:] == ["3", "0.5000", "0.5000 [0.4000 to 0.9000] ± 0.0300"]
    assert cells(page, "two", "accuracy")[2:] == ["2", "0.3333", "0.3100 [0.3000 to 0.3200] ± 0.0300"]
    assert cells(page, "T0-Eval mean", "accuracy")[3:] == ["0.4167", "0.4050 ± 0.0212 (over 2 of 4)"]
    assert cells(page, "T0-Eval mean", "normalised_accuracy")[3:] == ["0.0000", "-0.0175 ± 0.0375 (over 2 of 4)"]
    assert cells(page, "T0-Eval mean", "accuracy_per_token")[4].startswith("0.5000")
    for note in (
        "one: 1 prompted examples are skipped, because choices cannot be ranked; with template 'prompt 0' example 7",
        "two: the inputs of 6 prompted examples are too long",
        "missing in T0-Eval: three, four; of three, DATA has nothing of three",
        "data of one: DATA/one",
    ):
        assert note in page
    assert "acc,none" not in page and "| task |" not in page  # nothing of lm-eval was asked for
    assert "0.3100 [0.3000 to 0.3200]" in html_page([FIRST]) and "results.png" not in html_page([FIRST])


def test_runs_stand_side_by_side(tmp_path, capsys):
    for run in (FIRST, SECOND):
        write_report(tmp_path / run.name, [run])
        names = sorted(path.name for path in (tmp_path / run.name).iterdir())
        assert names == ["results.html", "results.json", "results.md", "t0_eval.png"]
    compare(["--results", *(str(tmp_path / name / "results.json") for name in ("first", "second"))])
    page = capsys.readouterr().out
    assert cells(page, "two", "accuracy")[4:] == ["0.3100 [0.3000 to 0.3200] ± 0.0300", "-"]
    assert cells(page, "T0-Eval mean", "accuracy")[3:] == ["-", "0.4050 ± 0.0212 (over 2 of 4)", "0.6000 ± 0.0300"]


def test_the_chart_has_bars_and_whiskers():
    (axes,) = t0_chart([FIRST, SECOND]).axes
    heights = [patch.get_height() for patch in axes.patches]
    assert heights[:3] == [0.5, 0.31, 0.6] and math.isnan(heights[3])
    whiskers = [bars.lines[2][0].get_segments() for bars in axes.containers if hasattr(bars, "lines")]
    assert [end[1] for end in whiskers[0][0]] == pytest.approx([0.4, 0.9])
    (baseline,) = [line for line in axes.collections if line.get_label() == "random"]
    assert [segment[0][1] for segment in baseline.get_segments()] == pytest.approx([1 / 2, 1 / 3])


def test_results_beside_tasks_of_lm_eval():
    both = {**FIRST.content, "results": {"copa": {"acc,none": 0.6, "acc_stderr,none": 0.05}}}
    page = markdown([Results("first", both), SECOND])
    assert cells(page, "copa")[3:] == ["0.6000 ± 0.0500", "-"]
    assert page.index("| copa") < page.index("## T0-Eval") < page.index("**first**")
