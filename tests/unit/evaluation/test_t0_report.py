"""Tables, notes and charts of T0-Eval's results against counts by hand, and files that hold others."""

import copy
import json
import math
from dataclasses import replace
from fractions import Fraction

import pytest

from megatron.basics.errors import UserError
from megatron.cli.evaluation_report import main as compare
from megatron.cli.evaluation_report import write_report
from megatron.evaluation.prompt_spread import Measured, over_examples
from megatron.evaluation.prompted_tasks import PromptedExamples, PromptedTask
from megatron.evaluation.report import html_page, markdown
from megatron.evaluation.results import Results, read_results
from megatron.evaluation.t0_entry import entry_of
from megatron.evaluation.t0_eval import PromptScore, TaskScore
from megatron.evaluation.t0_report import t0_chart
from megatron.prompting.mixture import HeldOutTask
from megatron.prompting.template import Prompted, Template

QUESTIONS = [(number, Prompted("ask", ("a",), ("a", "b"))) for number in range(4)]
ACCURACY = ("accuracy", "accuracy_per_token")


def prompt(name, choices="x"):
    own = Template("some/set", name, "a ||| b", choices, True, False, ("Accuracy",), name, "")
    return PromptedExamples(own, ACCURACY if choices else ("exact_match",), [*QUESTIONS])


def task(name, *prompts, random=Fraction(1, 2)):
    return PromptedTask(HeldOutTask(name, name, None, "validation", 1, random), f"DATA/{name}", prompts)


def scored(name, accuracies, random, cut=0):
    """A task whose prompts have these accuracies."""
    prompts = [prompt(f"prompt {number}", QUESTIONS) for number in range(len(accuracies))]
    prompts[0].skipped.add(7, "an empty choice")
    measures = [{"accuracy": Measured(value, 0.03), "accuracy_per_token": Measured(0.5, 0.03)} for value in accuracies]
    scores = [PromptScore(*parts, cut) for parts in zip(prompts, measures, strict=True)]
    return TaskScore(task(name, *prompts, random=random), tuple(scores))


def written(name, value):
    """A task whose one prompt has no choices."""
    own = prompt("write", None)
    return TaskScore(task(name, own), (PromptScore(own, {"exact_match": Measured(value, 0.03)}, 0),))


def results_of(name, *scores, missing=(), trained_on=()):
    reasons = {task: f"DATA has nothing of {task}." for task in missing}
    entry = entry_of(scores, reasons, scoring_rule="Letter by letter.", trained_on=[*trained_on])
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
        "one: 1 prompted examples are skipped, because they cannot be asked or scored; with template 'prompt 0' exam",
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


def test_differences_of_means_from_the_first_run():
    def run(name, *accuracies):  # with standard errors of 0.03 for each data set
        return results_of(name, *(scored(f"set{n}", [value], Fraction(1, 2)) for n, value in enumerate(accuracies)))

    before, after, worse = run("cd_flm", 0.5, 0.52), run("cd_mtf", 0.62, 0.49), run("nd_mtf", 0.4, 0.6)
    page, web = (make([before, after, worse]) for make in (markdown, html_page))
    # Means 0.51, 0.555, 0.5; each with sqrt(2 * 0.03²) / 2 = 0.021213, two of them together with 0.03.
    for line in (
        "cd_mtf - cd_flm: accuracy +0.0450 ± 0.0300, accuracy_per_token +0.0000 ± 0.0300, "
        "normalised_accuracy +0.0900 ± 0.0600",
        "nd_mtf - cd_flm: accuracy -0.0100 ± 0.0300, accuracy_per_token +0.0000 ± 0.0300, "
        "normalised_accuracy -0.0200 ± 0.0600",
    ):
        assert f"\n- {line}\n" in page and f"<li>{line}</li>" in web
    assert "means from those of cd_flm, ± standard error" in page and "as of independent answers" in web
    other = {**before.content, "t0_eval": {**before.content["t0_eval"], "limit": 7}}
    for others in (SECOND, Results("second", other)):
        told = "second - cd_flm: not told, because the means are over other data sets or examples"
        assert told in markdown([before, others])
    for runs in (
        [before],
        [results_of("writes", written("one", 0.7)), after],
        [after, Results("lm-eval", {"results": {}})],
    ):
        assert "Differences of the means" not in markdown(runs) + html_page(runs)


def answered(name, random, *lines):
    """A task whose prompts have these answers, one digit for each example; a line has those of both metrics."""
    scores = []
    for number, line in enumerate(lines):
        own = prompt(f"prompt {number}")
        own.questions[:] = [(place, QUESTIONS[0][1]) for place, mark in enumerate(line) if mark != "-"]
        right = [mark == "1" for mark in line if mark != "-"]
        measures = {metric: over_examples([*map(float, right)]) for metric in ACCURACY}
        scores.append(PromptScore(own, measures, 0, dict.fromkeys(ACCURACY, right)))
    return TaskScore(task(name, *(score.prompt for score in scores), random=random), tuple(scores))


def test_differences_pair_the_answers_to_the_same_examples():
    third = Fraction(1, 3)
    before = results_of("before", answered("a", third, "1001"), answered("b", third, "0-11", "1000", "0000"))
    after = results_of("after", answered("a", third, "1101"), answered("b", third, "1111", "1011", "0001"))
    # a: one more of four is right: 0.25, from 0 1 0 0 with a standard deviation of 0.5: an error of 0.25.
    # b: the prompts in the middle, of 0.25 and 0.75, are 1000 and 1011: 0.5 apart, from
    # 0 0 1 1 with sqrt(1/3): an error of 0.288675. So means are 0.375 apart, with sqrt(0.25² + 0.288675²) / 2.
    line = "accuracy +0.3750 ± 0.1909, accuracy_per_token +0.3750 ± 0.1909, normalised_accuracy +0.5625 ± 0.2864"
    assert f"- after - before: {line}\n" in markdown([before, after])
    assert after.t0["tasks"]["b"]["prompts"][1]["right"] == dict.fromkeys(ACCURACY, "1011")

    alone = copy.deepcopy(after)
    for each in alone.t0["tasks"]["a"]["prompts"]:
        del each["right"]  # as in results of an earlier version: sqrt(0.288675² + 0.25²) for a, as before for b
    assert "accuracy +0.3750 ± 0.2394, " in markdown([before, alone])


def test_a_difference_without_an_error():
    before, after = (results_of(name, answered("a", Fraction(1, 2), "1")) for name in ("before", "after"))
    assert "after - before: accuracy +0.0000, accuracy_per_token +0.0000, normalised" in markdown([before, after])


@pytest.mark.parametrize("line", ["0120", "yes", 7, None])
def test_answers_that_are_no_line_are_told(line, tmp_path):
    damaged = copy.deepcopy(FIRST.content)
    damaged["t0_eval"]["tasks"]["one"]["prompts"][0]["right"] = {"accuracy": line}
    (tmp_path / "results.json").write_text(json.dumps(damaged))
    with pytest.raises(UserError, match="tasks"):
        read_results(tmp_path / "results.json")


def test_a_report_leaves_no_chart_of_the_one_before_it(tmp_path):
    """Which would be of other runs, under the name that people look for."""
    tasks = {"copa": {"acc,none": 0.6, "acc_stderr,none": 0.05}}
    without_t0 = Results("lm-eval", {"results": tasks, "triarch": {"name": "lm-eval"}})
    both = Results("both", {**FIRST.content, "results": tasks})
    for runs, charts in (
        ([both, SECOND], ["results.png", "t0_eval.png"]),
        ([FIRST, SECOND], ["t0_eval.png"]),
        ([without_t0, both], ["results.png", "t0_eval.png"]),
        ([without_t0], ["results.png"]),
    ):
        write_report(tmp_path, runs)
        assert sorted(path.name for path in tmp_path.glob("*.png")) == charts


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


def test_tasks_that_a_model_was_trained_on_are_named():
    note = "not new to the model, which was trained on their data sets: one"
    run = results_of("first", scored("one", [0.5], Fraction(1, 2)), trained_on=["one"])
    assert note in markdown([run]) and note in html_page([run])
    assert "not new to the model" not in markdown([FIRST])


def test_a_run_whose_answers_were_written_stands_beside_one_that_ranks():
    runs = [results_of("writes", written("one", 0.7)), SECOND]
    page = markdown(runs)
    assert cells(page, "one", "exact_match")[3:] == ["-", "0.7000 [0.7000 to 0.7000] ± 0.0300", "-"]
    assert cells(page, "one", "accuracy")[3:5] == ["0.5000", "-"]
    (axes,) = t0_chart(runs).axes
    (baseline,) = [line for line in axes.collections if line.get_label() == "random"]
    assert [segment[0][1] for segment in baseline.get_segments()] == [0.5]


def test_templates_that_do_not_count_are_named():
    asked, silent = prompt("asked"), prompt("silent")
    silent.questions.clear()
    measures = {"accuracy": Measured(0.5, 0.03), "accuracy_per_token": Measured(0.5, 0.03)}
    own = replace(task("one", asked, silent), unmeasured=("by BLEU", "by Pearson"))
    page = markdown([results_of("first", TaskScore(own, (PromptScore(asked, measures, 0),)))])
    assert "one: silent: not counted, because they leave out every example" in page
    assert "one: by BLEU, by Pearson: not counted, because they have neither choices nor a metric that is known" in page
    assert cells(page, "one", "accuracy")[2] == "1"
    assert "not counted" not in markdown([FIRST])


def test_nothing_is_written_where_a_chart_cannot_be_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("megatron.cli.evaluation_report.t0_chart", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(tmp_path, [FIRST, SECOND])
    assert not [*tmp_path.iterdir()]


def places_in(value, *path):
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places_in(part, *path, key)


def changed(content, path, value):
    """A copy with another value in a place, or without the place."""
    content = copy.deepcopy(content)
    part = content
    for key in path[:-1]:
        part = part[key]
    if value is None:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return content


def test_whatever_stands_in_a_file_is_refused_or_reported(tmp_path):
    """Each place of a whole entry with something else in it: never an end without a sentence."""
    run = results_of("first", scored("one", [0.4], Fraction(1, 2), cut=1), written("two", 0.7), missing=["three"])
    path, refused, drawn = tmp_path / "results.json", set(), 0
    for place in [*places_in(run.content["t0_eval"])][1:]:
        for value in (None, 3, "x", [], {}, {"x": 3}, [3], 1e99, True):
            entry = changed(run.content["t0_eval"], place, value)
            path.write_text(json.dumps({**run.content, "t0_eval": entry}))
            try:
                found = [read_results(path)]
            except UserError as error:
                assert "in another form than evaluations write" in str(error)
                refused.add(place)
                continue
            html_page(found)
            if place[2:3] in (("metrics",), ("random",)):  # what a chart is drawn of
                t0_chart(found)
                drawn += 1
    for place in (
        ("scoring_rule",),
        ("mean", "random"),
        ("tasks", "one", "random"),
        ("tasks", "one", "metrics", "accuracy"),
        ("tasks", "one", "prompts", 0, "skipped"),
    ):
        assert place in refused
    assert drawn
