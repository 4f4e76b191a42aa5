"""The record of a run: written as JSON, read back the same, and honest about what it does not know."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from megatron.basics.errors import UserError
from megatron.cli.run_config import SECTIONS, RunConfig


@pytest.fixture
def config(parse_run: Callable[..., RunConfig], sound_flags: list[str]) -> RunConfig:
    return parse_run(
        [*sound_flags, *shlex.split("--objective prefix_lm --lr 1e-3 --bf16 --num-layers 3 --lr-warmup-iters 7")]
    )


def refused(content: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        RunConfig.from_dict(content, "run1/run.json", warn=lambda _: None)
    return str(caught.value)


def test_a_command_line_becomes_its_sections(config: RunConfig) -> None:
    assert (config.architecture, config.objective) == ("causal_decoder", "prefix_lm")
    assert (config.optimizer.lr, config.optimizer.bf16, config.model.num_layers) == (1e-3, True, 3)
    for name, options_class in SECTIONS.items():
        assert type(getattr(config, name)) is options_class


def test_json_and_back(config: RunConfig) -> None:
    warnings: list[str] = []
    content = json.loads(json.dumps(config.as_dict()))
    assert RunConfig.from_dict(content, warn=warnings.append) == config
    assert warnings == []


def test_a_record_without_a_newer_setting_takes_the_default_and_says_so(config: RunConfig) -> None:
    content = config.as_dict()
    del content["optimizer"]["z_loss_coeff"], content["logging"]
    warnings: list[str] = []
    read = RunConfig.from_dict(content, "run1/run.json", warn=warnings.append)
    assert read == config
    (warning,) = warnings
    assert warning.startswith("run1/run.json was written by another version; these take their defaults:")
    assert "optimizer.z_loss_coeff" in warning and "logging.eval_iters" in warning


def test_the_warning_goes_to_standard_error(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    content = config.as_dict()
    del content["model"]["num_query_groups"]
    RunConfig.from_dict(content)
    assert capsys.readouterr().err.startswith("warning: run.json was written by another version")


def test_what_this_version_cannot_honour_is_refused(config: RunConfig) -> None:
    content = config.as_dict()
    content["model"] |= {"gyroscopes": 8, "num_layerss": 3, "hidden_size": "wide"}
    content["telepathy"] = {}
    content["data"] = 3
    del content["objective"]
    text = refused(content)
    assert "run1/run.json: model.gyroscopes is not known to this version; it was written by" in text
    assert "run1/run.json: model.num_layerss is not known to this version; did you mean num_layers?" in text
    assert "run1/run.json: model.hidden_size must be a whole number, not wide." in text
    assert "run1/run.json: telepathy is not known to this version" in text
    assert "run1/run.json: data must hold settings by name." in text
    assert "run1/run.json does not say its objective" in text


def test_a_record_with_settings_that_exclude_each_other_is_refused(config: RunConfig) -> None:
    content = config.as_dict()
    content["optimizer"]["fp16"] = True
    assert refused(content) == "run1/run.json: optimizer: --bf16 and --fp16 exclude each other; keep one."
