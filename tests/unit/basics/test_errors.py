"""How a command ends: one sentence for a person, a documented exit code, and one rank that speaks for all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.basics import errors
from megatron.basics.errors import RunFault, UserError, exit_on_user_error, nearest, nearest_name

ROOT = Path(__file__).resolve().parents[3]


def end_of(result: object, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Exit code and standard error of a command that returns or raises `result`."""

    def main() -> object:
        if isinstance(result, BaseException):
            raise result
        return result

    with pytest.raises(SystemExit) as end:
        exit_on_user_error(main)
    return end.value.code, capsys.readouterr().err


def test_every_fault_is_a_line_and_the_exit_code_says_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert end_of(UserError("--a is wrong.", "--b too."), capsys) == (2, "error: --a is wrong.\nerror: --b too.\n")


@pytest.mark.parametrize(
    ("result", "code"), [(None, 0), (0, 0), (75, 75), (RunFault("NaN for ever."), 1), (KeyboardInterrupt(), 130)]
)
def test_other_ends(result: object, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    ended_with, printed = end_of(result, capsys)
    assert ended_with == code and "Traceback" not in printed


def test_a_programming_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_on_user_error(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("body", "lines_read"),
    [
        ("[print('a line of some length', number) for number in range(100_000)]", 3),
        ("print('less than a buffer')", 0),
        ("parse(['--help'], {})", 0),
        ("(_ for _ in ()).throw(UserError('told to no one', 'as here'))", 0),
    ],
)
def test_a_reader_that_has_seen_enough_ends_a_command_quietly(body: str, lines_read: int) -> None:
    program = (
        "import sys\n"
        "from megatron.basics.errors import UserError, exit_on_user_error\n"
        "from megatron.cli.flags import parse\n"
        "sys.stdin.readline()\n"
        f"exit_on_user_error(lambda: {body})"
    )
    ended = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if "UserError" in body else subprocess.PIPE,
        text=True,
    )
    assert ended.stdin and ended.stdout
    if lines_read:
        ended.stdin.write("\n")
        ended.stdin.flush()
    for number in range(lines_read):
        assert ended.stdout.readline() == f"a line of some length {number}\n"
    ended.stdout.close()
    _, complaints = ended.communicate(None if lines_read else "\n")
    assert ended.returncode == errors.EXIT_CLOSED_PIPE and not complaints


def test_a_broken_pipe_of_its_own_keeps_its_traceback() -> None:
    with pytest.raises(BrokenPipeError):
        exit_on_user_error(lambda: (_ for _ in ()).throw(BrokenPipeError()))


def test_other_ranks_let_rank_0_speak_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    assert end_of(UserError("wrong."), capsys) == (2, "error: wrong.\n")
    assert waits == []
    monkeypatch.setenv("RANK", "3")
    assert end_of(UserError("wrong."), capsys) == (2, "error on rank 3: wrong.\n")
    assert waits == [errors.SECONDS_FOR_RANK_0_TO_SPEAK]


def test_hints() -> None:
    known = ["full_lm", "prefix_lm", "span_corruption"]
    assert nearest("span_curruption", known) == " did you mean span_corruption?"
    assert nearest("electra", known) == ""
    assert nearest_name("prefixlm", known) == "prefix_lm"
    assert nearest_name("zebra", known) is None
