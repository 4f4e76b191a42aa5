"""Tables and charts of results: every number stands there once, beside its error and its baseline."""

import json

import pytest

from megatron.basics.errors import UserError
from megatron.cli.evaluation_report import main
from megatron.evaluation.report import bar_chart, html_page, markdown
from megatron.evaluation.results import Results, read_results

RESULTS = {
    "results": {
        "copa": {"alias": "copa", "acc,none": 0.625, "acc_stderr,none": 0.0485},
        "wikitext": {"alias": "wikitext", "word_perplexity,none": 123.5, "word_perplexity_stderr,none": "N/A"},
    },
    "n-shot": {"copa": 0, "wikitext": 0},
    "triarch": {
        "name": "first",
        "scoring_rule": "The context is read from left to right.",
        "lineage": "causal_decoder:full_lm 1M",
        "missing": {"webqs": "not there"},
        "random": {"copa": 0.25},
        "eai_eval": True,
        "data": {"copa": {"validation": "DATA/copa/validation.jsonl"}},
        "data_sets": {"copa": "aps/super_glue copa"},
    },
}
FOREIGN = {"results": {"copa": {"acc,none": 0.5, "acc_stderr,none": 0.05}}, "n-shot": {"copa": 0}}


def cells(page, start):
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_one_run_has_errors_baselines_and_what_is_missing():
    page = markdown([Results("first", RESULTS)])
    assert page.startswith("# Zero-shot evaluation")
    assert cells(page, "copa") == ["copa", "acc,none", "0.5000", "0.6250 ± 0.0485"]
    assert cells(page, "wikitext") == ["wikitext", "word_perplexity,none", "-", "123.5000"]
    assert cells(page, "EAI")[2:] == ["0.5000", "0.6250 ± 0.0485 (over 1 of 31)"]
    assert "EAI-Eval is not whole: 1 of 31" in page and "missing: webqs (not there)" in page
    assert "causal_decoder:full_lm 1M" in page
    assert "DATA/copa/validation.jsonl, in the place of aps/super_glue copa" in page


def test_the_study_s_baselines_are_for_the_study_s_list():
    alone = {**RESULTS, "triarch": {**RESULTS["triarch"], "eai_eval": False}}
    assert cells(markdown([Results("first", alone)]), "copa")[2] == "0.2500"  # what the choices say
    assert cells(markdown([Results("other", FOREIGN)]), "copa")[2] == "0.5000"  # nobody counted them


def test_runs_stand_side_by_side():
    page = markdown([Results("first", RESULTS), Results("other", FOREIGN)])
    assert cells(page, "copa")[3:] == ["0.6250 ± 0.0485", "0.5000 ± 0.0500"]
    assert cells(page, "wikitext")[3:] == ["123.5000", "-"] and cells(page, "EAI")[-1] == "-"


def test_examples_in_the_prompt_are_no_zero_shot_evaluation():
    assert markdown([Results("first", {**RESULTS, "n-shot": {"copa": 5}})]).startswith("# Evaluation")


def test_the_page_holds_the_same_numbers_and_escapes_names():
    page = html_page([Results("<first>", RESULTS)])
    assert "<td>0.6250 ± 0.0485</td>" in page and "&lt;first&gt;" in page and "<first>" not in page


def test_the_chart_has_a_bar_for_each_run_and_a_line_for_each_baseline():
    (axes,) = bar_chart([Results("first", RESULTS), Results("other", FOREIGN)]).axes
    bars = [patch.get_height() for patch in axes.patches]
    assert bars == [0.625, 0.5]  # a perplexity is no share
    (baseline,) = [line for line in axes.collections if line.get_label() == "random"]
    assert baseline.get_segments()[0][:, 1].tolist() == [0.5, 0.5]


def test_the_chart_shows_groups_without_their_members():
    tasks = {name: {"acc,none": 0.5, "acc_stderr,none": 0.1} for name in ("mmlu", "mmlu_anatomy", "copa")}
    run = {"results": tasks, "group_subtasks": {"mmlu": ["mmlu_anatomy"]}}
    run["triarch"] = {"random": {"mmlu": 0.25, "mmlu_anatomy": 0.125, "copa": 0.5}}
    (axes,) = bar_chart([Results("first", run)]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["mmlu", "copa"]
    (baselines,) = [line for line in axes.collections if line.get_label() == "random"]
    places, heights = zip(*((segment[:, 0].mean(), segment[0, 1]) for segment in baselines.get_segments()), strict=True)
    assert places == pytest.approx((0, 1)) and heights == (0.25, 0.5)  # each at its own bar


def test_a_chart_without_accuracies_is_empty():
    run = {"results": {"wikitext": {"word_perplexity,none": 0.9}}}
    (axes,) = bar_chart([Results("first", run)]).axes
    assert len(axes.patches) == 0


def test_the_command_compares_files(tmp_path, capsys):
    for name, content in (("a", RESULTS), ("b", FOREIGN)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(content))
    files = [str(tmp_path / name / "results.json") for name in "ab"]
    main(["--results", *files, "--output-path", str(tmp_path / "report")])
    assert cells(capsys.readouterr().out, "task")[3:] == ["first", "b"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "results.html",
        "results.md",
        "results.png",
    ]
    main(["--results", *files, "--names", "one", "two"])
    assert cells(capsys.readouterr().out, "task")[3:] == ["one", "two"]
    with pytest.raises(UserError, match="give one for each"):
        main(["--results", *files, "--names", "one"])
    with pytest.raises(UserError, match="--names has one more than once"):
        main(["--results", *files, "--names", "one", "one"])
    with pytest.raises(UserError, match=r"--results has .*a/results.json more than once"):
        main(["--results", files[0], str(tmp_path / "b" / ".." / "a" / "results.json")])


def test_runs_of_the_same_name_are_told_apart_by_their_folders(tmp_path, capsys):
    files = [tmp_path / name / "run" / "results.json" for name in ("a", "b")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(RESULTS))
    main(["--results", *map(str, files)])
    assert cells(capsys.readouterr().out, "task")[3:] == ["first (a/run)", "first (b/run)"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"results": 3}',
        '{"results": {}, "triarch": 5}',
        '{"results": {"copa": 3}}',
        '{"results": {}, "n-shot": []}',
        '{"results": {}, "group_subtasks": {"mmlu": [[]]}}',
        '{"results": {}, "triarch": {"random": {"copa": "x"}}}',
        '{"results": {}, "triarch": {"missing": []}}',
        '{"results": {}, "triarch": {"data": {"copa": {"test": 1}}}}',
        '{"results": {}, "t0_eval": 5}',
        '{"results": {}, "t0_eval": {"tasks": {"rte": {"metrics": 3}}}}',
        '{"results": {}, "t0_eval": {"missing": []}}',
        '{"results": {}, "t0_eval": {"tasks": {"rte": {"metrics": {}}}}}',
        '{"results": {}, "t0_eval": {"tasks": {"rte": {"metrics": {"accuracy": 3}}}}}',
        '{"results": {}, "t0_eval": {"tasks": {}, "mean": {"data_sets": ["rte"]}}}',
    ],
)
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"give a results.json"):
        read_results(path)


def test_a_score_that_is_no_number_is_left_out(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"results": {"copa": {"acc,none": "x"}}, "triarch": {"eai_eval": true}}')
    assert "copa" not in markdown([read_results(path)]).partition("EAI-Eval is not whole")[0]


def test_files_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_results(tmp_path / "none.json")
