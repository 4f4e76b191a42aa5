"""Full language modelling, from window to the table of objectives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron.architectures.causal_decoder import CausalDecoder
from megatron.architectures.row_rules import RowRules
from megatron.basics.errors import UserError
from megatron.objectives.full_lm import FullLM
from megatron.objectives.registry import OBJECTIVES
from megatron.records.window import Window


@given(tokens=st.lists(st.integers(0, 1000), min_size=2, max_size=40), data=st.data())
def test_every_token_but_the_first_is_a_label_once(tokens: list[int], data: st.DataObject) -> None:
    starts = sorted(data.draw(st.sets(st.integers(0, len(tokens) - 1))))
    window = Window(tokens=np.array(tokens, np.int32), document_starts=np.array(starts, np.int32))
    (example,) = FullLM()(window, None)
    assert len(example.inputs) == 0 and example.targets.tolist() == tokens
    assert example.document_starts.tolist() == starts
    row = CausalDecoder().arrange((example,), RowRules(seq_length=len(tokens) - 1, end_of_document=0))
    assert row.tokens.tolist() == tokens[:-1] and row.labels.tolist() == tokens[1:] and row.loss_mask.all()


@given(seq_length=st.integers(1, 10**6))
def test_windows_fill_rows_and_overlap_by_the_one_token_that_is_no_label(seq_length: int) -> None:
    objective = FullLM()
    assert objective.window_length(seq_length) - 1 == seq_length == objective.stride(seq_length)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_every_objective_of_the_table_keeps_the_protocol(name: str) -> None:
    objective = OBJECTIVES[name]()
    window = Window(
        tokens=np.arange(objective.window_length(64), dtype=np.int32), document_starts=np.zeros(1, np.int32)
    )
    examples = objective(window, np.random.default_rng(0) if objective.uses_randomness else None)
    assert examples and all(isinstance(example, objective.produces) for example in examples)
    assert 1 <= objective.stride(64) <= objective.window_length(64)
    assert type(objective).__doc__


def test_a_misspelt_objective_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="--objective ful_lm is not known; did you mean full_lm"):
        OBJECTIVES["ful_lm"]
