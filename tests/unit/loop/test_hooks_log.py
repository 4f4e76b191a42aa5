"""The log line as other people's parsers read it, and which hooks a run gets."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from megatron.loop.hooks.log import LogHook, log_line, perplexity
from megatron.loop.hooks.registry import HOOKS, build_hooks
from tests.unit.loop.hook_reports import facts, setup, step_report, validation_report

# The pattern of a parser that was written for Megatron-LM's logs.
MEGATRON_LINE = re.compile(
    r"\[(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6})\] iteration +(?P<iteration>\d+)/ +(?P<total>\d+) \|"
    r" consumed samples: +(?P<samples>\d+) \|"
    r" elapsed time per iteration \(ms\): (?P<ms>[\d.]+) \|"
    r"(?: throughput per GPU \(TFLOP/s/GPU\): (?P<tflops>[\d.]+) \|)?"
    r" learning rate: (?P<lr>[\d.E+-]+) \|"
    r" global batch size: +(?P<batch>\d+) \|"
    r"(?: lm loss: (?P<loss>[\d.E+-]+) \|)?"
    r" loss scale: (?P<scale>[\d.]+) \|"
    r" grad norm: (?P<norm>[\d.]+|nan) \|"
    r" number of skipped iterations: +(?P<skipped>\d+) \|"
    r" number of nan iterations: +(?P<nan>\d+) \|"
)


def fields(line: str) -> dict[str, Any]:
    match = MEGATRON_LINE.fullmatch(line.strip())
    assert match, line
    return match.groupdict()


def test_a_line_is_megatrons() -> None:
    read = fields(log_line([step_report(n) for n in (4, 5)], 100))
    assert (read["iteration"], read["total"], read["samples"], read["batch"]) == ("5", "100", "20", "4")
    assert (read["ms"], read["tflops"], read["lr"]) == ("250.0", "0.750", "1.000000E-03")
    assert float(read["loss"]) == pytest.approx((10 / 4 + 10 / 5) / 2)
    assert (read["scale"], read["norm"], read["skipped"], read["nan"]) == ("1.0", "1.500", "0", "0")


def test_columns_keep_their_widths() -> None:
    line = log_line([step_report(5)], 100)
    for part in (" iteration        5/     100 |", " consumed samples:           20 |", " global batch size:     4 |"):
        assert part in line


def test_a_step_that_was_not_applied_is_counted_and_left_out_of_the_mean() -> None:
    reports = [
        step_report(4),
        step_report(5, skipped=True, grad_norm=math.nan, losses={"lm loss": 99.0}),
        step_report(6, nonfinite="lm loss", losses={"lm loss": math.nan}, loss_scale=1024.0),
    ]
    read = fields(log_line(reports, 100))
    assert (float(read["loss"]), read["skipped"], read["nan"], read["scale"]) == (2.5, "1", "1", "1024.0")
    assert fields(log_line(reports[1:], 100))["loss"] is None


def test_every_interval_and_the_last_step_have_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    hook = LogHook(log_interval=40)
    hook.on_start(facts(None))
    for iteration in range(1, 101):
        hook.on_step(step_report(iteration))
    hook.on_validation(validation_report(100))
    hook.on_end()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "causal_decoder full_lm, TP2"
    assert [fields(line)["iteration"] for line in lines[1:4]] == ["40", "80", "100"]
    assert float(fields(lines[3])["loss"]) == pytest.approx(sum(10 / n for n in range(81, 101)) / 20)
    assert lines[4] == (" validation loss at iteration 100 | lm loss value: 2.000000E+00 | lm loss PPL: 7.389056E+00 |")


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    hook = LogHook(log_interval=1)
    hook.on_start(facts(None, is_main=False))
    hook.on_step(step_report(1))
    hook.on_validation(validation_report(1))
    hook.on_end()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_a_bar_instead(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    hook = LogHook(log_interval=1)
    hook.on_start(facts(None, start_iteration=98))
    hook.on_step(step_report(99))
    hook.on_validation(validation_report(99))
    hook.on_step(step_report(100))
    hook.on_end()
    shown = capsys.readouterr()
    assert shown.out == "causal_decoder full_lm, TP2\n"
    assert "100/100" in shown.err and "lm loss 0.1000, 2,048 tokens/s" in shown.err
    assert "validation loss at iteration 99" in shown.err


def test_perplexity_of_a_bad_start_does_not_overflow() -> None:
    assert perplexity(math.log(32.0)) == pytest.approx(32.0)
    assert perplexity(1e9) == math.exp(20.0)


def test_a_run_gets_the_hooks_it_asks_for(tmp_path: Path) -> None:
    def names(hooks: list[Any]) -> list[str]:
        return [type(hook).__name__ for hook in hooks]

    assert names(build_hooks(setup(None))) == ["LogHook"]
    with_folder = names(build_hooks(setup(tmp_path)))
    assert {"LogHook", "MetricsFileHook", "TensorBoardHook"} <= set(with_folder)
    assert "WandbHook" not in with_folder
    assert "WandbHook" in names(build_hooks(setup(None, wandb_project="x")))
    assert "TensorBoardHook" in names(build_hooks(setup(None, tensorboard_dir=str(tmp_path))))
    assert {"log", "metrics_file", "tensorboard", "wandb"} <= set(HOOKS)
