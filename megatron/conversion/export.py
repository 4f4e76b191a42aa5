"""A checkpoint of ours as a Hugging Face folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from megatron.basics.atomic_files import atomic_writer, write_json
from megatron.conversion.blocks import theirs_in_blocks
from megatron.conversion.checkpoint_weights import CheckpointWeights
from megatron.conversion.choose_family import Choice
from megatron.conversion.hf_folder import CONFIG, INDEX_ENDING, WEIGHTS
from megatron.conversion.provenance import Provenance
from megatron.conversion.rules import Pair, expand
from megatron.conversion.tensor_writer import PlannedTensor, plan_shards, write_files

GENERATION_CONFIG = "generation_config.json"
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


@dataclass(frozen=True)
class ExportPlan:
    """What a folder will hold. copies: tensors that it has once more, by other names. shards: all tensors by file."""

    choice: Choice
    pairs: Sequence[Pair]
    copies: Sequence[Pair]
    shards: Mapping[str, Sequence[PlannedTensor]]

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for shard in self.shards.values() for tensor in shard)

    @property
    def parameters(self) -> int:
        """Numbers of the model, each counted once."""
        return sum(math.prod(shape) for pair in self.pairs for shape in pair.shapes_of_theirs())


def plan_export(choice: Choice, max_shard_bytes: int) -> ExportPlan:
    """Names and shapes of all tensors, in the dtype that the model is described with; nothing is read."""
    pairs = expand(choice.family.rules(choice.described), choice.described)
    source_of = {pair.theirs: pair for pair in pairs}
    copies = [
        replace(source_of[(choice.family.copies[name],)], theirs=(name,))
        for name in choice.family.written_copies(choice.described)
    ]
    planned = [
        PlannedTensor(name, choice.described.dtype, shape)
        for pair in (*pairs, *copies)
        for name, shape in zip(pair.theirs, pair.shapes_of_theirs(), strict=True)
    ]
    shards = plan_shards(planned, max_shard_bytes)
    stem, ending = WEIGHTS[0].rsplit(".", 1)
    names = [f"{stem}-{number:05d}-of-{len(shards):05d}.{ending}" for number in range(1, len(shards) + 1)]
    return ExportPlan(choice, pairs, copies, dict(zip(names if len(shards) > 1 else WEIGHTS[:1], shards, strict=True)))


def write_export(
    plan: ExportPlan,
    weights: CheckpointWeights,
    provenance: Provenance,
    folder: Path,
    *,
    from_masters: bool,
    advance: Callable[[int], None],
) -> None:
    """Write tensors, index, configs and modelling file into a folder that exists.

    advance: hears of bytes that are written. from_masters: the float32 weights of the optimizer, not those that the
    model computed with.
    """
    write_files(folder, plan.shards, _blocks(plan, weights, from_masters), advance)
    if len(plan.shards) > 1:
        weight_map = {tensor.name: file for file, shard in plan.shards.items() for tensor in shard}
        content = {"metadata": {"total_size": plan.size}, "weight_map": weight_map}
        write_json(folder / f"{WEIGHTS[0]}{INDEX_ENDING}", content)
    config = plan.choice.family.config(plan.choice.described)
    write_json(folder / CONFIG, {**config, **provenance.entry()})
    tokens = {name: config[name] for name in TOKENS if config.get(name) is not None}
    write_json(folder / GENERATION_CONFIG, {"_from_model_config": True, **tokens})
    for name, text in plan.choice.family.files.items():
        with atomic_writer(folder / name, "w") as file:
            file.write(text)


def _blocks(plan: ExportPlan, weights: CheckpointWeights, from_masters: bool) -> Iterator[Tensor]:
    read = partial(weights.read_box, master=from_masters)
    for pair in (*plan.pairs, *plan.copies):
        yield from theirs_in_blocks(pair, read)
