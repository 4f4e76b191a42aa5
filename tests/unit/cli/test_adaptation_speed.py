"""How much sooner an adapted run gets there, from metrics.jsonl files made by hand."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.basics.errors import UserError
from megatron.cli.adaptation_speed import main, tokens_to_reach


def write_run(folder: Path, validations: dict[int, float], tokens_per_step: int = 1000) -> str:
    folder.mkdir()
    lines = []
    for iteration in range(1, max(validations) + 1):
        line = {"iteration": iteration, "consumed_tokens": iteration * tokens_per_step}
        lines.append({**line, "lm loss": 9.0})
        if iteration in validations:
            lines.append({**line, "lm loss validation": validations[iteration]})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_a_table_of_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scratch = write_run(tmp_path / "scratch", {4: 5.0, 8: 4.0})
    fast, slow = write_run(tmp_path / "fast", {1: 4.5, 3: 3.5}), write_run(tmp_path / "slow", {8: 4.1})
    main(["--scratch", scratch, scratch, "--adapted", fast, slow])
    heading, first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["scratch", "4.0000", "8,000", "fast", "2,000", "4.00x"]
    assert second.split() == ["scratch", "4.0000", "8,000", "slow", "not", "reached"]
    assert heading.index("adapted") == first.index("fast") == second.index("slow")


@given(
    losses=st.lists(st.floats(0.1, 10), min_size=1, max_size=6),
    goal=st.floats(0.1, 10),
)
def test_the_loss_is_reached_where_the_course_first_crosses_it(losses: list[float], goal: float) -> None:
    course = [(1_000_000 * number, loss) for number, loss in enumerate(losses, start=1)]
    tokens = tokens_to_reach(goal, course)
    crossed = [place for place, loss in course if loss <= goal]
    assert (tokens is None) == (not crossed)
    if tokens is not None:
        assert crossed[0] - 1_000_000 <= tokens <= crossed[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "--scratch is missing"),
        (["--scratch", "a", "--adapted", "b", "c"], "--adapted names 2 runs and --scratch 1"),
        (["--scratch", "nowhere", "--adapted", "nowhere"], "nowhere/metrics.jsonl cannot be read: .*; check the path"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        main(words)


def test_a_run_without_validation_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {1: 4.0})
    with pytest.raises(UserError, match="has no validation of the other loss"):
        main(["--scratch", run, "--adapted", run, "--loss", "other loss"])
