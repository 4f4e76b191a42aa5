"""Attention of branches against that of each branch written out as a text of its own, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.attention.branches import attend_with_branches
from megatron.attention.registry import ATTENTION_BACKENDS
from megatron.evaluation.branch_keys import COPIES, Branch, branches_of
from megatron.records.batch import Visibility

HEADS, GROUPS, WIDTH = 4, 2, 8


@st.composite
def rows_of_branches(draw: st.DrawFn) -> tuple[int, int, list[Branch]]:
    """(rows, their length, branches): trunks with branches behind them, one behind the other in each row."""
    branches, ends = [], []
    num_rows = draw(st.integers(1, 3))
    for row in range(num_rows):
        end = 0
        for trunk, lengths in draw(
            st.lists(st.tuples(st.integers(1, 40), st.lists(st.integers(1, 20), max_size=3)), min_size=1, max_size=3)
        ):
            begin, end = end, end + trunk
            for length in lengths:
                branches.append(Branch(row, begin, trunk, end, length))
                end += length
        ends.append(end)
    return num_rows, max(ends), branches


def written_out(query, key, value, bias, branch):
    """Context [h, branch.length, d] of the branch's own tokens behind its trunk."""
    own = range(branch.first, branch.first + branch.length)
    columns = [*range(branch.begin, branch.begin + branch.trunk), *own]
    query = query[branch.row][:, [*own]].double()
    key, value = (
        tensor[branch.row][:, columns].double().repeat_interleave(HEADS // GROUPS, dim=0) for tensor in (key, value)
    )
    apart = torch.arange(len(columns)) - torch.arange(branch.trunk, len(columns))[:, None]
    scores = query @ key.transpose(1, 2) * 0.3
    if bias is not None:
        scores = scores + bias.double()[:, apart + (bias.shape[1] - 1) // 2]
    return scores.masked_fill(apart > 0, -torch.inf).softmax(-1) @ value


@pytest.mark.parametrize("backend", [*ATTENTION_BACKENDS])
@settings(deadline=None, max_examples=25)
@given(case=rows_of_branches(), with_bias=st.booleans(), seed=st.integers(0, 9))
def test_a_branch_attends_as_a_text_of_its_own(backend, case, with_bias, seed):
    num_rows, length, branches = case
    torch.manual_seed(seed)
    query, key, value = (
        torch.randn(length, num_rows, heads, WIDTH).permute(1, 2, 0, 3) for heads in (HEADS, GROUPS, GROUPS)
    )
    bias = torch.randn(HEADS, 2 * length - 1) if with_bias else None
    causal = torch.tensor([[0, end + 1] for end in range(length)], dtype=torch.int32).expand(num_rows, -1, -1)
    plain = Visibility(causal.contiguous(), length)
    how = {"scale": 0.3, "distance_bias": bias}
    attend = ATTENTION_BACKENDS[backend]
    visibility = Visibility(plain.intervals, length, branches=branches_of(branches, num_rows, length))
    got = attend_with_branches(attend, query, key, value, visibility, **how)
    wanted = attend(query, key, value, plain, **how)
    for branch in branches:
        own = slice(branch.first, branch.first + branch.length)
        wanted[branch.row, :, own] = written_out(query, key, value, bias, branch).float()
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_branches_of_like_size_are_together():
    """A long trunk or a long branch does not make the short ones long."""
    sizes = [(10, 3), (11, 2), (500, 2), (500, 3), (500, 200), (12, 3)]
    branches = [Branch(0, 0, trunk, 600, length) for trunk, length in sizes]
    found = branches_of(branches, 1, 800)
    assert [tuple(one.keys.shape) for one in found] == [(3, 15), (2, 503), (1, 700)]
    assert sum(one.origins.shape[1] for one in found) == sum(length for _, length in sizes)
    assert np.unique(torch.cat([one.targets for one in found], dim=1)[0]).tolist() == list(range(600, 800))


def test_many_branches_do_not_multiply_memory():
    """A hundred answers behind a long context: their keys are not all copied at once."""
    branches = [Branch(0, 0, 500, 500 + number, 1) for number in range(100)]
    found = branches_of(branches, 1, 600)
    assert max(one.keys.numel() for one in found) <= COPIES * 600 and sum(len(one.keys) for one in found) == 100
    assert torch.cat([one.targets for one in found], dim=1)[0].tolist() == list(range(500, 600))
