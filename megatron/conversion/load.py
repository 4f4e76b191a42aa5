"""A Hugging Face folder as a checkpoint of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron.basics.errors import UserError
from megatron.conversion.blocks import ours_in_blocks, row_ranges
from megatron.conversion.choose_family import family_of
from megatron.conversion.config_values import refuse_endless, refuse_endless_tensors
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.family import Family
from megatron.conversion.hf_folder import CONFIG, HfFolder
from megatron.conversion.provenance import Provenance
from megatron.conversion.rules import Pair, expand
from megatron.conversion.tensor_file import DTYPES
from megatron.conversion.tensor_names import Matching, match, today
from megatron.conversion.tensor_writer import PlannedTensor


@dataclass(frozen=True)
class ImportPlan:
    """A folder that has proved whole, and what becomes of it."""

    folder: HfFolder
    family: Family
    described: DescribedModel
    provenance: Provenance | None
    matching: Matching

    @property
    def pairs(self) -> list[Pair]:
        """The rules of its tensors, which depend on how the vocabulary is padded."""
        return expand(self.family.rules(self.described), self.described)

    @property
    def size(self) -> int:
        """Bytes of all tensors of the checkpoint."""
        return sum(tensor.nbytes for tensor in self.planned())

    def planned(self) -> list[PlannedTensor]:
        """The tensors of the checkpoint."""
        return [PlannedTensor(pair.ours, self.described.dtype, pair.shape) for pair in self.pairs]

    def tensors(self) -> Iterator[Tensor]:
        """The same, in their order, each as one block of rows or several."""
        for pair in self.pairs:
            yield from ours_in_blocks(pair, self._read)

    def _read(self, name: str, origin: Sequence[int], shape: Sequence[int]) -> Tensor:
        return self.folder.read_box(self.matching.names[name], origin, shape)


def plan_import(path: Path, *, family: str | None, dtype: str | None) -> ImportPlan:
    """Read all that a folder says of itself, and compare. Raises UserError with every fault; writes nothing.

    dtype: of the checkpoint; that of the folder where it is None.
    """
    folder = HfFolder.open(path)
    chosen = family_of(folder.config, family, str(path / CONFIG))
    described = _describe(folder, chosen)
    matching = match(folder, chosen, expand(chosen.rules(described), described))
    _require_weights(folder, matching)
    described = replace(described, dtype=dtype or _common_dtype(folder, matching))
    _require_equal(folder, matching)
    provenance = Provenance.of_config(folder.config)
    if provenance is not None:
        described = replace(
            described,
            begins_with_start_token=provenance.begin_with_start_token,
            ends_inputs=provenance.ends_inputs,
        )
    return ImportPlan(folder, chosen, described, provenance, matching)


def _describe(folder: HfFolder, family: Family) -> DescribedModel:
    path = folder.path / CONFIG
    try:
        refuse_endless(folder.config)
        described = family.describe(_whole_config(folder), today(folder.tensors, family))
        refuse_endless_tensors(described)
        return described
    except UserError as error:
        raise UserError(*(f"{path}: {fault.removeprefix(f'{CONFIG}: ')}" for fault in error.faults)) from error
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path} is not the config of a {family.model_type}: {error!r}.") from error


def _whole_config(folder: HfFolder) -> Mapping[str, Any]:
    """The config with what it leaves to defaults, as transformers fills it; of a class of our own as it is."""
    from transformers import CONFIG_MAPPING  # takes seconds, and other commands look at this package too

    model_type = folder.config["model_type"]
    if model_type not in CONFIG_MAPPING:
        return folder.config
    try:
        whole: dict[str, Any] = CONFIG_MAPPING[model_type].from_dict(folder.config).to_dict()
        return whole
    except Exception as error:  # each class refuses what it dislikes in its own way
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{CONFIG} is refused by transformers: {reason}.") from error


def _common_dtype(folder: HfFolder, matching: Matching) -> str:
    """The dtype of all weights. Raises UserError where they differ."""
    example_of = {folder.tensors[stored].dtype: stored for stored in matching.names.values()}
    if len(example_of) > 1:
        examples = ", ".join(f"{stored} in {dtype}" for dtype, stored in sorted(example_of.items()))
        raise UserError(f"{folder.path} holds weights of several kinds ({examples}); choose one with --dtype.")
    return next(iter(example_of))


def _require_weights(folder: HfFolder, matching: Matching) -> None:
    for stored in matching.names.values():
        dtype = folder.tensors[stored].dtype
        if dtype not in DTYPES.values():
            raise UserError(
                f"{folder.path}: {stored} is in {dtype}; quantized weights cannot be converted, give the folder that "
                "they were made of."
            )


def _require_equal(folder: HfFolder, matching: Matching) -> None:
    """Tensors that a model holds once must be equal wherever a folder has them."""
    for copy, of in matching.copies:
        if folder.tensors[copy] != folder.tensors[of] or not _hold_the_same(folder, copy, of):
            raise UserError(
                f"{folder.path}: {copy} differs from {of}, and by {CONFIG} (model_type, tie_word_embeddings) they are "
                "one tensor; correct whichever is wrong."
            )


def _hold_the_same(folder: HfFolder, one: str, other: str) -> bool:
    shape = folder.tensors[one].shape
    for first, last in row_ranges(shape):
        box = (first, *(0 for _ in shape[1:])), (last - first, *shape[1:])
        if not torch.equal(folder.read_box(one, *box), folder.read_box(other, *box)):
            return False
    return True
