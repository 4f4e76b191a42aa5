"""Which family a folder is of, and which one can hold a model of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from megatron.basics.errors import UserError, nearest
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.families.near_relatives import NEAR_RELATIVES
from megatron.conversion.family import Family
from megatron.conversion.registry import FAMILIES


@dataclass(frozen=True)
class Choice:
    """described: the model as the family holds it. reads_causally: which is a prefix decoder that became causal."""

    family: Family
    described: DescribedModel
    reads_causally: bool = False


def family_for(described: DescribedModel, name: str | None) -> Choice:
    """The family of that name; without one the first that holds the model.

    One with a modelling file of its own is taken by itself only where no other has models of this architecture. Raises
    UserError with every reason against.
    """
    if name is not None:
        family: Family = FAMILIES[name]
        faults = [*family.faults(described, by_name=True)]
        if faults:
            raise UserError(*faults)
        if family.holds_as_causal(described):
            return Choice(family, replace(described, architecture="causal_decoder"), reads_causally=True)
        return Choice(family, described)
    families: list[Family] = [FAMILIES[known] for known in FAMILIES]
    of_this_kind = [family for family in families if described.architecture in family.architectures]
    with_own_file = [family for family in of_this_kind if family.files]
    stock = [family for family in of_this_kind if not family.files]
    for family in stock or with_own_file:
        if not any(family.faults(described)):
            return Choice(family, described)
    reasons = [fault for family in stock or with_own_file for fault in family.faults(described)]
    ways = [family.name for family in with_own_file if not any(family.faults(described))] if stock else []
    if ways:
        reasons.append(
            f"no class of transformers holds this model; --family {ways[0]} does, with a modelling file of its own."
        )
    raise UserError(*reasons)


def family_of(config: Mapping[str, Any], name: str | None, where: str) -> Family:
    """The family of a folder by its config. Raises UserError for one that is not known, or not `name`."""
    model_type = config["model_type"]
    families: list[Family] = [FAMILIES[known] for known in FAMILIES]
    own = [family for family in families if family.model_type == model_type]
    if name is not None:
        family = FAMILIES[name]
        if family not in own:
            fits = f"; leave the flag out, or use {own[0].name}" if own else f", and has models of {family.model_type}"
            raise UserError(f"--family {name} is not that of {where}, a {model_type}{fits}.")
        return family
    if not own and model_type in NEAR_RELATIVES:
        raise UserError(f"{where}: the model_type {model_type} {NEAR_RELATIVES[model_type].reason(config)}.")
    if not own:
        types = list(dict.fromkeys(family.model_type for family in families))
        raise UserError(
            f"{where}: the model_type {model_type} is not known;{nearest(model_type, types)} Known: {', '.join(types)}."
        )
    return own[0]
