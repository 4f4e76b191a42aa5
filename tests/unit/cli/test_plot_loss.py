"""Curves from run folders, as runs really leave them, and the picture of them."""

import json

import pytest

from megatron.basics.errors import UserError
from megatron.cli.loss_curves import read_loss_curves
from megatron.cli.plot_loss import main, smooth


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    losses = [(1, 9.0), (2, 7.0), (3, 6.0), (3, 6.5), (4, 5.0)]  # killed after step 3, resumed from 2
    lines = [json.dumps({"iteration": iteration, "lm loss": loss}) for iteration, loss in losses]
    lines.append(json.dumps({"iteration": 4, "lm loss validation": 5.5}))
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"iteration": 5, "lm l']))
    starts = [{"iteration": 0, "layout": "TP2 PP1 DP1"}, {"iteration": 2, "layout": "TP1 PP1 DP2"}]
    (folder / "run.json").write_text(json.dumps({"starts": starts}))
    return folder


def test_repeated_steps_count_once_and_a_line_cut_off_is_left_out(run_folder):
    curves = read_loss_curves(run_folder, "lm loss")
    assert curves.training == [(1, 9.0), (2, 7.0), (3, 6.5), (4, 5.0)]
    assert curves.validation == [(4, 5.5)]
    assert curves.resumes == [(2, "TP1 PP1 DP2")]


def test_a_damaged_line_in_the_middle_is_named(run_folder):
    path = run_folder / "metrics.jsonl"
    path.write_text("{]\n" + path.read_text())
    with pytest.raises(UserError, match="line 1 is not JSON"):
        read_loss_curves(run_folder, "lm loss")


def test_smoothing_keeps_a_straight_line_and_its_length():
    line = [(step, float(step)) for step in range(500)]
    assert smooth(line)[10:-10] == line[10:-10]
    assert len(smooth(line)) == len(line)


@pytest.mark.parametrize("ending, magic", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_picture_is_written(run_folder, tmp_path, capsys, ending, magic):
    output = tmp_path / f"loss.{ending}"
    main(["--load", str(run_folder), str(run_folder), "--output", str(output)])
    assert output.read_bytes().startswith(magic)
    assert "run at iteration 4" in capsys.readouterr().out


def test_wrong_use_is_told_in_sentences(run_folder, tmp_path):
    with pytest.raises(UserError, match=r"--output loss\.jpg must end in"):
        main(["--load", str(run_folder), "--output", "loss.jpg"])
    with pytest.raises(UserError, match="no step with a mlm loss"):
        main(["--load", str(run_folder), "--output", str(tmp_path / "a.png"), "--loss", "mlm loss"])
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read"):
        main(["--load", str(tmp_path), "--output", str(tmp_path / "a.png")])
    assert not (tmp_path / "a.png").exists()
