"""What a conversion is told of a run: prompts are given as the run's own command gives them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from megatron.architectures.legal_pairs import legal_objectives
from megatron.architectures.registry import ARCHITECTURES
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
    assert described.reads_prompts_both_ways == (rows.rule.startswith("The context") and "both ways" in rows.rule)
