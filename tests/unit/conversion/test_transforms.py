"""Transforms are exact inverses of one another, whatever the numbers; a folder's shapes follow from them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron.conversion.transforms import Grouped, Same, Stacked, Transposed, Words

SIZES = st.integers(1, 4)


@st.composite
def cases(draw):
    """(transform, our tensor)"""
    kind = draw(st.sampled_from(["same", "transposed", "words", "stacked", "grouped"]))
    columns = draw(st.sampled_from([(), (draw(SIZES),)]))
    if kind == "same":
        return Same(), torch.randn(draw(SIZES), *columns)
    if kind == "transposed":
        return Transposed(), torch.randn(draw(SIZES), draw(SIZES))
    if kind == "words":
        words, padding = draw(SIZES), draw(st.integers(0, 3))
        table = torch.randn(words + padding, *columns)
        table[words:] = 0
        return Words(words, words + padding), table
    if kind == "stacked":
        parts = draw(SIZES)
        return Stacked(parts), torch.randn(parts * draw(SIZES), *columns)
    groups, head_size = draw(SIZES), draw(SIZES)
    rows = draw(st.sampled_from([(1, 1), (1, 1, 1), (3, 1, 1)]))
    transform = Grouped(groups, rows, head_size, transposed=draw(st.booleans()), joined=draw(st.booleans()))
    if transform.joined and transform.transposed and columns:
        return transform, torch.randn(groups * sum(rows) * head_size, *columns)
    return Grouped(groups, rows, head_size), torch.randn(groups * sum(rows) * head_size, *columns)


@given(cases())
def test_there_and_back(case):
    transform, ours = case
    theirs = transform.to_theirs(ours)
    assert torch.equal(transform.to_ours(theirs), ours)
    again = transform.to_theirs(transform.to_ours(theirs))
    assert all(torch.equal(one, other) for one, other in zip(again, theirs, strict=True))
    assert sum(part.numel() for part in theirs) <= ours.numel()


@given(cases())
def test_shapes_need_no_numbers(case):
    transform, ours = case
    on_meta = transform.to_theirs(ours.to("meta"))
    assert [part.shape for part in on_meta] == [part.shape for part in transform.to_theirs(ours)]


@pytest.mark.parametrize(("groups", "heads"), [(4, 4), (2, 4), (1, 4)])
def test_grouped_queries_keys_and_values(groups, heads):
    """Row numbers say where each head went: queries of a group, its key, its value."""
    query, key, value = torch.arange(heads), 100 + torch.arange(groups), 200 + torch.arange(groups)
    transform = Grouped(groups, (heads // groups, 1, 1), 1)
    woven = transform.to_ours((query, key, value)).tolist()
    per_group = heads // groups
    for group in range(groups):
        start = group * (per_group + 2)
        assert woven[start : start + per_group] == list(range(group * per_group, (group + 1) * per_group))
        assert woven[start + per_group : start + per_group + 2] == [100 + group, 200 + group]
