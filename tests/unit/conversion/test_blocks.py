"""Blocks of rows say the same as transforms of whole tensors, and nothing is read twice or whole."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.conversion import blocks
from megatron.conversion.blocks import ours_in_blocks, theirs_in_blocks
from megatron.conversion.rules import Pair
from megatron.conversion.transforms import Grouped, Same, Stacked, Transposed, Words

COLUMNS = 6
TRANSFORMS = {
    "same": (Same(), 10),
    "transposed": (Transposed(), 10),
    "words": (Words(7, 12), 12),
    "stacked": (Stacked(2), 8),
    "qkv": (Grouped(2, (3, 1, 1), 2), 20),
    "qkv of one group": (Grouped(1, (4, 1, 1), 3), 18),
    "kv": (Grouped(3, (1, 1), 2), 12),
    "qkv, transposed": (Grouped(2, (2, 1, 1), 2, transposed=True), 16),
    "GPT-2's c_attn": (Grouped(3, (1, 1, 1), 2, transposed=True, joined=True), 18),
}


class Boxes:
    """Tensors that count what is read of them."""

    def __init__(self, tensors):
        self.tensors, self.most, self.numbers = tensors, 0, 0

    def __call__(self, name, origin, shape):
        size = math.prod(shape)
        self.most, self.numbers = max(self.most, size), self.numbers + size
        return self.tensors[name][
            tuple(slice(first, first + size) for first, size in zip(origin, shape, strict=True))
        ].clone()


def joined(parts, shapes):
    """Tensors of these shapes from a stream of blocks."""
    tensors, parts = [], iter(parts)
    for shape in shapes:
        rows = []
        while sum(map(len, rows)) < shape[0]:
            rows.append(next(parts))
        tensors.append(torch.cat(rows))
        assert tensors[-1].shape == shape and all(block.is_contiguous() for block in rows)
    assert not list(parts)
    return tensors


@settings(deadline=None, max_examples=80)
@given(
    name=st.sampled_from(sorted(TRANSFORMS)),
    is_bias=st.booleans(),
    numbers=st.integers(1, 150),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_blocks_are_what_the_transform_makes(name, is_bias, numbers, dtype):
    transform, rows = TRANSFORMS[name]
    shape = (rows,) if is_bias else (rows, COLUMNS)
    ours = torch.randn(shape).to(dtype)
    if isinstance(transform, Words):
        ours[transform.vocabulary_size :] = 0
    expected = transform.to_theirs(ours)
    pair = Pair("ours", shape, tuple(f"theirs.{number}" for number in range(len(expected))), transform)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "ROWS", numbers)
        patch.setattr(blocks, "COLUMNS", numbers)
        read = Boxes({"ours": ours})
        found = joined(theirs_in_blocks(pair, read), [tensor.shape for tensor in expected])
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        is_turned = expected[0].shape[0] == COLUMNS and not is_bias
        assert read.most <= max(numbers, rows if is_turned else COLUMNS)
        if not is_turned or pair.transform == Transposed():
            assert read.numbers == sum(tensor.numel() for tensor in expected)

        read = Boxes(dict(zip(pair.theirs, expected, strict=True)))
        (back,) = joined(ours_in_blocks(pair, read), [shape])
        assert torch.equal(back, ours) and read.numbers == sum(tensor.numel() for tensor in expected)
        assert read.most <= max(numbers, COLUMNS)


def test_the_widest_precision_of_several_tensors_is_kept():
    """The writer compares what it makes of it with what there was."""
    pair = Pair("ours", (4,), ("a", "b"), Stacked(2))
    theirs = {"a": torch.tensor([1.0, 7e4]), "b": torch.ones(2).bfloat16()}
    (block,) = ours_in_blocks(pair, Boxes(theirs))
    assert block.dtype == torch.float32 and block.tolist() == [1.0, 7e4, 1.0, 1.0]
    (block,) = ours_in_blocks(pair, Boxes({name: tensor.bfloat16() for name, tensor in theirs.items()}))
    assert block.dtype == torch.bfloat16
