"""Full language modelling: every token is a label."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from megatron.architectures.causal_decoder import CausalDecoder
from megatron.architectures.row_rules import RowRules
from megatron.basics.draws import Draws
from megatron.records.window import Window
from tests.oracles.objective_cases import build, decoder_room


@given(tokens=st.lists(st.integers(0, 1000), min_size=2, max_size=40), data=st.data())
def test_every_token_but_the_first_is_a_label_once(tokens: list[int], data: st.DataObject) -> None:
    starts = sorted(data.draw(st.sets(st.integers(0, len(tokens) - 1))))
    window = Window(tokens=np.array(tokens, np.int32), document_starts=np.array(starts, np.int32))
    (example,) = build("full_lm", decoder_room(len(tokens)))(window, Draws(0))
    assert len(example.inputs) == 0 and example.targets.tolist() == tokens
    assert example.document_starts.tolist() == starts
    row = CausalDecoder().arrange((example,), RowRules(seq_length=len(tokens) - 1, end_token=0))
    assert row.tokens.tolist() == tokens[:-1] and row.labels.tolist() == tokens[1:] and row.loss_mask.all()


@given(length=st.integers(1, 10**6))
def test_windows_fill_rows_and_overlap_by_the_one_token_that_is_no_label(length: int) -> None:
    objective = build("full_lm", decoder_room(length))
    assert objective.window_length - 1 == length == objective.stride
    objective = build("full_lm", decoder_room(length, overlap=0))
    assert objective.window_length == length == objective.stride
