"""Key intervals against masks written position by position."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron.basics.errors import UserError
from megatron.records import visibility as v
from megatron.records.batch import Visibility

lengths = st.integers(0, 40)


def mask_of(rule, num_queries, num_keys):
    return np.array([[rule(q, k) for k in range(num_keys)] for q in range(num_queries)], bool).reshape(
        num_queries, num_keys
    )


@given(lengths)
def test_causal(length):
    assert np.array_equal(v.dense(v.causal(length), length), np.tril(np.ones((length, length), bool)))


@given(lengths, st.none() | lengths)
def test_bidirectional(length, num_keys):
    keys = length if num_keys is None else num_keys
    intervals = v.bidirectional(length, num_keys)
    v.check(intervals, keys)
    assert v.dense(intervals, keys).all() and v.dense(intervals, keys).shape == (length, keys)


@given(lengths, st.data())
def test_prefix(length, data):
    prefix = data.draw(st.integers(0, length))
    intervals = v.prefix(prefix, length)
    v.check(intervals, length)
    assert np.array_equal(v.dense(intervals, length), mask_of(lambda q, k: k < prefix or k <= q, length, length))


@given(st.lists(lengths, max_size=5), st.integers(0, 10), st.data())
def test_packed(segment_lengths, padding, data):
    """A block matrix of the segments' own masks, and nothing in the padding."""
    segments = [v.prefix(data.draw(st.integers(0, length)), length) for length in segment_lengths]
    total = sum(segment_lengths) + padding
    intervals = v.packed(segments, total)
    v.check(intervals, total)
    expected, offset = np.zeros((total, total), bool), 0
    for segment in segments:
        end = offset + len(segment)
        expected[offset:end, offset:end] = v.dense(segment, len(segment))
        offset = end
    assert np.array_equal(v.dense(intervals, total), expected)


@given(st.lists(st.integers(0, 39), max_size=6), st.integers(1, 40))
def test_documents(starts, length):
    intervals = v.documents(starts, length)
    v.check(intervals, length)
    document = np.cumsum([position in starts for position in range(length)])
    expected = mask_of(lambda q, k: k <= q and document[q] == document[k], length, length)
    assert np.array_equal(v.dense(intervals, length), expected)


@pytest.mark.parametrize(
    ("intervals", "picture"),
    [
        (v.causal(3), "1 0 0\n1 1 0\n1 1 1"),
        (v.prefix(2, 3), "1 1 0\n1 1 0\n1 1 1"),
        (v.documents([1], 3), "1 0 0\n0 1 0\n0 1 1"),
    ],
)
def test_draw(intervals, picture):
    assert v.draw(intervals, 3) == picture


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="prefix of 4 tokens"):
        v.prefix(4, 3)
    with pytest.raises(UserError, match="segments of 5 positions"):
        v.packed([v.causal(5)], 4)


@pytest.mark.parametrize(
    "bad",
    [
        np.array([[0, 5]], np.int32),  # past the last key
        np.array([[-1, 1]], np.int32),
        np.array([[2, 1]], np.int32),  # backwards
        np.array([[1, 2], [0, 2]], np.int32),  # start goes back
        np.array([[0, 2], [0, 1]], np.int32),  # end goes back
        np.array([[0, 1]], np.int64),
        np.zeros(3, np.int32),
    ],
)
def test_check_refuses(bad):
    with pytest.raises(ValueError, match=r"interval|bounds"):
        v.check(bad, 4)


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_batch_sees_what_its_samples_see(num_queries, num_keys):
    samples = [v.bidirectional(num_queries, num_keys), np.zeros((num_queries, 2), np.int32)]
    batch = Visibility(torch.from_numpy(np.stack(samples)), num_keys)
    assert batch.dense.shape == (2, 1, num_queries, num_keys)
    for sample, dense, seen in zip(samples, batch.dense[:, 0], batch.seen[:, 0, :, 0], strict=True):
        assert np.array_equal(dense.numpy(), v.dense(sample, num_keys))
        assert np.array_equal(seen.numpy(), v.dense(sample, num_keys).any(1))
    assert torch.equal(batch.dense_without_empty_rows, batch.dense | ~batch.dense.any(-1, keepdim=True))
    assert batch.dense is batch.dense, "built once a step"
