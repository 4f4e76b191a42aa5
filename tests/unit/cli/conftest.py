"""A folder with what a sound command line names, and a short way to parse one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from megatron.basics.errors import UserError
from megatron.cli.run_config import RunConfig, parse_pretrain

OBJECTIVES = ("full_lm", "prefix_lm", "span_corruption", "ul2", "fill_in_the_middle")


@pytest.fixture(scope="session")
def sound_flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The least that a pretraining command has to say, with files that exist."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("corpus.bin", "corpus.idx", "tokenizer.model"):
        (folder / name).touch()
    (folder / "hf_tokenizer").mkdir()
    return ["--data-path", str(folder / "corpus"), "--tokenizer-model", str(folder / "tokenizer.model")]


@pytest.fixture
def inputs(sound_flags: list[str]) -> Path:
    return Path(sound_flags[1]).parent


@pytest.fixture
def parse_run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """parse_run(argv, world_size=1): the settings of a causal decoder's run."""

    def parse_run(argv: list[str], world_size: int | str = 1) -> RunConfig:
        monkeypatch.setenv("WORLD_SIZE", str(world_size))
        return parse_pretrain(
            argv, architecture="causal_decoder", default_objective="full_lm", legal_objectives=OBJECTIVES
        )

    return parse_run


@pytest.fixture
def faults_of(parse_run: Callable[..., RunConfig]) -> Callable[..., list[str]]:
    """The sentences that a command line is answered with; an empty list when it is accepted."""

    def faults_of(argv: list[str], world_size: int | str = 1) -> list[str]:
        try:
            parse_run(argv, world_size)
        except UserError as error:
            return list(error.faults)
        return []

    return faults_of
