"""The rules of a family: which tensors of a folder a tensor of ours is, declared once and used both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from megatron.conversion.described_model import DescribedModel
from megatron.conversion.transforms import Same, Transform

LAYER = "{i}"


@dataclass(frozen=True)
class Rule:
    """A tensor of ours, those of theirs that it becomes, and how.

    ours: a name in checkpoints, or a template in which {i} counts layers of its stack, e.g.
    "decoder.layers.{i}.mlp.linear_fc2.weight"; theirs: names or templates with the same {i}. A rule for a tensor that
    the model does not have counts for nothing, so that one list holds for models with and without biases.
    """

    ours: str
    theirs: tuple[str, ...]
    transform: Transform = field(default_factory=Same)


@dataclass(frozen=True)
class Pair:
    """A rule for one tensor, with its whole shape in a checkpoint."""

    ours: str
    shape: tuple[int, ...]
    theirs: tuple[str, ...]
    transform: Transform

    def shapes_of_theirs(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each tensor of the folder."""
        whole = torch.empty(self.shape, device="meta")
        return tuple(tuple(part.shape) for part in self.transform.to_theirs(whole))

    def to_theirs(self, ours: Tensor) -> dict[str, Tensor]:
        """The folder's tensors by name."""
        return dict(zip(self.theirs, self.transform.to_theirs(ours), strict=True))

    def to_ours(self, theirs: Mapping[str, Tensor]) -> Tensor:
        """The checkpoint's tensor."""
        return self.transform.to_ours(tuple(theirs[name] for name in self.theirs))


def expand(rules: Sequence[Rule], described: DescribedModel) -> list[Pair]:
    """A pair for each tensor of the model, in the order in which it registers them.

    Every tensor has exactly one rule: a family that leaves one out must have refused the model before.
    """
    weights = described.weights()
    pairs = {}
    for rule in rules:
        for ours, theirs in _instances(rule, weights):
            assert ours not in pairs, f"two rules for {ours}"
            pairs[ours] = Pair(ours, weights[ours], theirs, rule.transform)
    left = [name for name in weights if name not in pairs]
    assert not left, f"no rule for {left[0]}"
    return [pairs[name] for name in weights]


def _instances(rule: Rule, weights: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    if LAYER not in rule.ours:
        if rule.ours in weights:
            yield rule.ours, rule.theirs
        return
    before, behind = rule.ours.split(LAYER)
    for name in weights:
        number = name.removeprefix(before).removesuffix(behind)
        if name == f"{before}{number}{behind}" and number.isdecimal():
            yield name, tuple(template.replace(LAYER, number) for template in rule.theirs)
