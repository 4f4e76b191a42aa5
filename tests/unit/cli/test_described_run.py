"""What a conversion is told of a run: prompts are given as the run's own command gives them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from megatron.architectures.legal_pairs import legal_objectives
from megatron.architectures.registry import ARCHITECTURES
from megatron.basics.errors import UserError
from megatron.cli.described_run import describe_run
from megatron.cli.run_config import RunConfig
from megatron.cli.wire import prompt_rows_of
from megatron.tokenization.tokenizer import load_tokenizer

CELLS = [(architecture, objective) for architecture in ARCHITECTURES for objective in legal_objectives(architecture)]


@pytest.mark.parametrize(("architecture", "objective"), CELLS)
def test_prompts_are_what_the_runs_own_rows_make_of_them(
    architecture: str,
    objective: str,
    parse_run: Callable[..., RunConfig],
    sound_flags: list[str],
    sentencepiece_model: Path,
) -> None:
    tokenizer = load_tokenizer(
        "SentencePieceTokenizer", str(sentencepiece_model), ["sentinels", "mode_tokens", "fim_tokens"]
    )
    config = replace(parse_run([*sound_flags, "--seq-length", "256"]), architecture=architecture, objective=objective)
    described, rows = describe_run(config, tokenizer), prompt_rows_of(config, tokenizer)
    assert (described.reads_running_text, described.ends_inputs) == (rows.reads_running_text, rows.ends_inputs)
    assert described.start_token is None and not described.begins_with_start_token
    assert described.reads_prompts_both_ways == (rows.rule.startswith("The context") and "both ways" in rows.rule)


@pytest.mark.parametrize(
    ("flags", "start", "begins"),
    [
        ([], 7, False),
        (["--begin-with-start-token"], 0, True),
        (["--begin-with-start-token", "--start-token", "begin"], 7, True),
    ],
)
def test_rows_begin_with_the_token_that_is_asked_for(
    flags: list[str],
    start: int,
    begins: bool,
    parse_run: Callable[..., RunConfig],
    sound_flags: list[str],
    sentencepiece_model: Path,
) -> None:
    """What an export says of the beginning of texts, and what the rows of prompts begin with."""
    config = parse_run([*sound_flags, *flags])
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(sentencepiece_model))
    own, tokenizer.special = tokenizer.special, replace(tokenizer.special, begin=7)
    described, rows = describe_run(config, tokenizer), prompt_rows_of(config, tokenizer)
    assert (described.start_token, described.begins_with_start_token) == (start, begins)
    tokens = rows.arrange([11, 12])[0].tokens
    assert tokens[: 2 + begins].tolist() == [*([start] if begins else []), 11, 12]
    behind_an_encoder = replace(config, architecture="encoder_decoder", objective="prefix_lm")
    assert describe_run(behind_an_encoder, tokenizer).pad_token == 0
    tokenizer.special = own
    if "begin" in flags:
        with pytest.raises(UserError, match=r"--start-token begin: .* has no beginning-of-text token; use"):
            describe_run(config, tokenizer)
