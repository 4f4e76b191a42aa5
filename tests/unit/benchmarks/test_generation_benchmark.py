"""The benchmark of generation compares equal work."""

from __future__ import annotations

import pytest

from benchmarks import generation
from megatron.basics.errors import RunFault
from tests.oracles.one_process_model import DEVICE, one_process_grid

PROMPTS = [[1, 2, 3, 4], [50, 60, 70, 80]]


SMALL: dict[str, dict[str, object]] = {
    "gpt2": {"n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 2},
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
}


@pytest.mark.parametrize("model", SMALL)
def test_both_write_the_same_tokens_and_others_are_refused(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(generation.SETTINGS, model, SMALL[model])
    theirs = generation.random_model(model)
    writers = {
        "triarch": generation.our_writer(model, theirs, DEVICE, one_process_grid(), 6, 2),
        "transformers": generation.their_writer(theirs, 6),
    }
    seconds = generation.measured(writers, PROMPTS, rounds=2)
    assert {name: len(times) for name, times in seconds.items()} == {"triarch": 2, "transformers": 2}
    generation.print_table(seconds, 12, DEVICE)
    assert "x" in capsys.readouterr().out.splitlines()[-1]
    writers["transformers"] = generation.their_writer(theirs, 5)
    with pytest.raises(RunFault, match="different tokens"):
        generation.measured(writers, PROMPTS, rounds=1)
