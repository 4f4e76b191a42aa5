"""Rows of a text and the figures of a verdict beside sums over single numbers in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron.basics.errors import UserError
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.parity import Parity, compare
from megatron.conversion.tokenizer_parity import TokenizerParity
from megatron.conversion.verdict import Verdict
from megatron.conversion.verification_sample import CHARACTERS, cut_sample, sample_text
from megatron.conversion.weight_parity import Precision, WeightParity, have_equal_bits
from megatron.modeling.options import ModelOptions

END, START = 500, 501


def described_as(architecture, *, length=16, begins=False, ends=True):
    return DescribedModel(
        architecture=architecture,
        model=ModelOptions(num_layers=1, hidden_size=8, num_attention_heads=2),
        vocabulary_size=600,
        max_positions=length,
        begins_with_start_token=begins,
        ends_inputs=ends,
        start_token=START if begins else None,
        end_token=END,
        pad_token=0,
    )


@given(
    count=st.integers(2, 300),
    length=st.integers(1, 40),
    architecture=st.sampled_from(["causal_decoder", "prefix_decoder", "encoder_decoder"]),
    begins=st.booleans(),
    ends=st.booleans(),
)
def test_rows_are_the_text_without_a_gap(count, length, architecture, begins, ends):
    described = described_as(architecture, length=length + 2, begins=begins, ends=ends)
    sample = cut_sample(range(1, count + 1), described)
    assert 1 <= len(sample.rows) <= 4 and 1 <= sample.row_length <= length + 2
    read = []
    for row in sample.rows:
        assert row.loss_mask.sum() >= 1
        if architecture == "encoder_decoder":
            assert len(row.encoder.tokens) == sample.row_length
            both = (row.encoder.tokens, row.labels)
            assert all((part[-1] == END) == ends for part in both)
            read += [token for part in both for token in part[: -1 if ends else None]]
            assert row.tokens[0] == 0 and row.loss_mask.all()
        else:
            assert (row.tokens[0] == START) == begins
            read += [*row.tokens[1 if begins else 0 :], row.labels[-1]]
    assert read == [*range(1, len(read) + 1)]
    assert (sample.prefix > 0) == (architecture == "prefix_decoder" and sample.row_length > 1)
    if sample.prefix:
        starts_and_ends = {tuple(pair) for row in sample.rows for pair in row.intervals[: sample.prefix]}
        assert starts_and_ends == {(0, sample.prefix)}


def test_a_text_that_is_too_short():
    with pytest.raises(UserError, match="--verify-text has 1 tokens"):
        cut_sample([5], described_as("causal_decoder"))


def test_no_more_of_a_text_is_read_than_is_used(tmp_path):
    (tmp_path / "text").write_bytes(b"word " * CHARACTERS + b"\xff, which no reader of all of it would pass")
    assert sample_text(str(tmp_path / "text")).text == ("word " * CHARACTERS)[:CHARACTERS]


@pytest.fixture
def sides():
    """Logits of two models that are nearly one, and their rows."""
    sample = cut_sample(range(2, 90), described_as("prefix_decoder"))
    generator = torch.Generator().manual_seed(0)
    ours = [3 * torch.randn(16, 600, generator=generator) for _ in sample.rows]
    theirs = [one + 0.01 * torch.randn(16, 600, generator=generator) for one in ours]
    return ours, theirs, sample


def test_figures(sides):
    ours, theirs, sample = sides
    parity = compare(ours, iter(theirs), sample)
    a, b = (np.stack([row.numpy() for row in side]).astype(np.float64) for side in (ours, theirs))
    assert parity.positions == 64 and parity.max_difference == pytest.approx(np.abs(a - b).max(), rel=1e-4)
    assert parity.mean_difference == pytest.approx(np.abs(a - b).mean(), rel=1e-4)
    assert parity.same_top == (a.argmax(-1) == b.argmax(-1)).mean()
    assert parity.root_mean_square == pytest.approx(np.sqrt((a * a).mean()), rel=1e-6)
    for side, found in zip((a, b), parity.log_likelihood, strict=True):
        scores = [
            logits[place, row.labels[place]] - np.log(np.exp(logits[place]).sum())
            for logits, row in zip(side, sample.rows, strict=True)
            for place in np.flatnonzero(row.loss_mask)
        ]
        assert parity.predicted == len(scores) and found == pytest.approx(np.mean(scores), rel=1e-6)
    assert parity.default_tolerance == pytest.approx(1e-4 * parity.root_mean_square)


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_no_number_is_lost(number, side, sides):
    sides[side][2][3, 7] = number
    verdict = verdict_with(parity=compare(sides[0], iter(sides[1]), sides[2]))
    assert verdict.reasons == ("logits are not finite",)


GOOD = Parity(
    positions=64,
    max_difference=9e-5,
    mean_difference=1e-6,
    same_top=1.0,
    predicted=60,
    log_likelihood=(-3.0, -3.0),
    root_mean_square=0.5,
)


def verdict_with(**changed):
    facts = {
        "checkpoint": "run/iter_0000001",
        "folder": "out",
        "architecture": "causal_decoder",
        "text": "a text",
        "rows": 4,
        "row_length": 16,
        "precision": Precision("float32", "float32", False),
        "tolerance": 1e-4,
        "parity": GOOD,
        "weights": WeightParity(9, ()),
        "tokenizer": TokenizerParity(True, "the same 70 ids"),
    }
    return Verdict(**{**facts, **changed})


def test_every_difference_is_a_reason():
    assert verdict_with().has_passed and verdict_with().lines().endswith("verdict: passed")
    assert verdict_with(tokenizer=TokenizerParity(None, "the folder has none")).has_passed
    failed = verdict_with(
        tolerance=8e-5, weights=WeightParity(9, tuple("abcde")), tokenizer=TokenizerParity(False, "other ids")
    )
    assert failed.ending == (
        "verdict: FAILED, logits differ by 9e-05, and 8e-05 is the most that passes; 5 of 9 tensors differ (a, b, c, "
        "and 2 more); the tokenizers differ: other ids"
    )
    assert not failed.has_passed and failed.markdown().endswith(f"**{failed.ending}**")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_bits_are_compared_and_not_numbers(dtype):
    ones = torch.tensor([[0.0, 1.0], [math.nan, 2.0]], dtype=dtype)
    assert have_equal_bits(ones, ones.clone()) and have_equal_bits(ones.t(), ones.t().contiguous())
    others = ones.clone()
    others[0, 0] = -0.0
    assert not have_equal_bits(ones, others)


def test_what_was_rounded_is_not_called_equal_to_the_bit():
    assert WeightParity(9, ()).sentence() == "all 9 tensors are equal, bit for bit"
    assert WeightParity(9, (), 9, "bfloat16").sentence() == "all 9 tensors are equal after rounding to bfloat16"
    some = WeightParity(9, (), 2, "float32").sentence()
    assert some == "all 9 tensors are equal, 2 of them after rounding to float32"
    rounding = {("float32", "bfloat16"): "bfloat16", ("float16", "bfloat16"): "float16 and bfloat16"}
    rounding |= {("float32", "float64"): "float32", ("bfloat16", None): "bfloat16"}
    for (checkpoint, folder), expected in rounding.items():
        assert Precision(checkpoint, folder, from_masters=False).rounding == expected


def test_the_coarser_side_decides_what_can_be_equal():
    weight = torch.tensor([1.0, 1 + 2**-7, 1 + 2**-10, 1 + 2**-20])
    expected = {
        ("float32", "float32"): weight,
        ("float32", "bfloat16"): torch.tensor([1.0, 1 + 2**-7, 1.0, 1.0]),
        ("bfloat16", "float16"): torch.tensor([1.0, 1 + 2**-7, 1.0, 1.0]),
        ("float16", "float32"): torch.tensor([1.0, 1 + 2**-7, 1 + 2**-10, 1.0]),
        ("float32", None): weight,
    }
    for (checkpoint, folder), rounded in expected.items():
        precision = Precision(checkpoint, folder, from_masters=False)
        assert torch.equal(precision.rounded(weight), rounded)
        assert ("rounded to" in verdict_with(precision=precision).heading()) == (
            None not in (checkpoint, folder) and checkpoint != folder
        )
