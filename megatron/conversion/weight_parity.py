"""Whether the tensors of a folder are those of a checkpoint, each read when its turn has come.

Bits are compared, so that 0 and -0 differ and one NaN is equal to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from megatron.basics.errors import UserError
from megatron.conversion.checkpoint_weights import CheckpointWeights
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.load import ImportPlan
from megatron.conversion.rules import Pair, expand
from megatron.conversion.tensor_file import dtype_of

MOST_NAMED = 3
FINE = ("float32", "float64")
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of a number


@dataclass(frozen=True)
class Precision:
    """checkpoint, folder: dtypes of the weights that are compared; None for a folder that holds several.

    from_masters: the checkpoint's are the float32 weights of its optimizer. The coarser side decides what can be equal.
    """

    checkpoint: str
    folder: str | None
    from_masters: bool

    @classmethod
    def of(cls, weights: CheckpointWeights, plan: ImportPlan) -> Precision:
        """A float32 folder is compared with the optimizer's weights where a checkpoint in less precision has them."""
        dtypes = {plan.folder.tensors[name].dtype for name in plan.matching.names.values()}
        folder = dtypes.pop() if len(dtypes) == 1 else None
        from_masters = folder == "float32" and weights.dtype != "float32" and weights.has_masters
        return cls("float32" if from_masters else weights.dtype, folder, from_masters)

    @property
    def coarse(self) -> list[str]:
        """Those dtypes that hold less than float32."""
        return [name for name in (self.checkpoint, self.folder) if name is not None and name not in FINE]

    def rounded(self, tensor: Tensor) -> Tensor:
        """float32, with no more digits than both sides hold."""
        return reduce(Tensor.to, map(dtype_of, self.coarse), tensor).float()

    @property
    def rounding(self) -> str:
        """To what `rounded` rounds, for reports."""
        return " and ".join(dict.fromkeys(self.coarse)) or "float32"


@dataclass(frozen=True)
class WeightParity:
    """tensors: of the folder, all of them compared. different: names of those that are not the checkpoint's.

    rounded: how many of them stand in another precision in the checkpoint, so that both sides were rounded first;
    rounding: to what.
    """

    tensors: int
    different: tuple[str, ...]
    rounded: int = 0
    rounding: str | None = None

    def sentence(self) -> str:
        """For reports."""
        if self.different:
            return f"{len(self.different):,} of {self.tensors:,} tensors differ ({self.named()})"
        if not self.rounded:
            return f"all {self.tensors:,} tensors are equal, bit for bit"
        them = "" if self.rounded == self.tensors else f", {self.rounded:,} of them"
        return f"all {self.tensors:,} tensors are equal{them} after rounding to {self.rounding}"

    def named(self) -> str:
        """The first of those that differ."""
        more = len(self.different) - MOST_NAMED
        return ", ".join([*self.different[:MOST_NAMED], *([f"and {more} more"] if more > 0 else [])])


def pairs_with(described: DescribedModel, plan: ImportPlan) -> list[Pair]:
    """The folder's tensors beside those of a checkpoint of `described`. Raises UserError where shapes do not agree."""
    words = described.shape.padded_vocabulary_size
    if not described.vocabulary_size <= plan.described.vocabulary_size <= words:
        raise UserError(
            f"{plan.folder.path} has {plan.described.vocabulary_size:,} words and the checkpoint "
            f"{described.vocabulary_size:,}; they are different models."
        )
    # Tables of the checkpoint as they are, whatever the folder's own padding would be.
    theirs = replace(plan.described, model=replace(plan.described.model, make_vocab_size_divisible_by=words))
    pairs = expand(plan.family.rules(theirs), theirs)
    mine: Mapping[str, tuple[int, ...]] = described.weights()
    shapes = {pair.ours: pair.shape for pair in pairs}
    for name in sorted(mine.keys() | shapes.keys()):
        if mine.get(name) != shapes.get(name):
            raise UserError(
                f"{plan.folder.path} and the checkpoint are different models: {name} is {_shown(shapes.get(name))} by "
                f"the folder and {_shown(mine.get(name))} in the checkpoint."
            )
    return pairs


def compare_weights(
    pairs: Sequence[Pair],
    plan: ImportPlan,
    weights: CheckpointWeights,
    precision: Precision,
    advance: Callable[[int], None],
) -> WeightParity:
    """Read both sides, tensor after tensor. advance: hears of bytes of the folder that are compared.

    Raises UserError for files of either side that are damaged.
    """
    different = []
    count = rounded = 0
    for pair in pairs:
        expected = pair.to_theirs(weights.read(pair.ours, master=precision.from_masters))
        for name, tensor in expected.items():
            stored = plan.matching.names[name]
            found = plan.folder.read(stored)
            sides = (found, tensor)
            if found.dtype != tensor.dtype:
                sides = (precision.rounded(found), precision.rounded(tensor))
                rounded += 1
            if not have_equal_bits(*sides):
                different.append(stored)
            count += 1
            advance(found.nbytes)
    return WeightParity(count, tuple(different), rounded, precision.rounding if rounded else None)


def have_equal_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one dtype have the same bytes."""
    bits = BITS[one.element_size()]
    return torch.equal(one.view(bits), other.view(bits))


def _shown(shape: tuple[int, ...] | None) -> str:
    return "not there" if shape is None else str(list(shape))
