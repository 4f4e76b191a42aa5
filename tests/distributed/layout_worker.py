"""Runs one tiny model on many layouts inside one torchrun job, and writes what it saw as JSON.

torchrun --nproc-per-node 4 layout_worker.py JOB.json: {"output": path, "cases": [{"name", "layout", "model", ...}]}.
Cases run in their order; those of one layout that follow one another share its process groups, whose making takes long.
"""

import gc
import hashlib
import itertools
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron.device.device import choose_device

DEVICE = choose_device("cpu")  # must come before megatron.core is imported

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from megatron.architectures.registry import ARCHITECTURES  # noqa: E402
from megatron.architectures.row_rules import RowRules  # noqa: E402
from megatron.attention.registry import choose_backend  # noqa: E402
from megatron.basics.draws import Draws  # noqa: E402
from megatron.checkpoint.contents import Contents, Progress  # noqa: E402
from megatron.checkpoint.load import load_newest  # noqa: E402
from megatron.checkpoint.manifest import read_manifest  # noqa: E402
from megatron.checkpoint.options import CheckpointOptions  # noqa: E402
from megatron.data.collate import collate  # noqa: E402
from megatron.layout import grid as grids  # noqa: E402
from megatron.layout.options import LayoutOptions  # noqa: E402
from megatron.loop.options import OptimizerOptions  # noqa: E402
from megatron.loop.saving import Saver  # noqa: E402
from megatron.loop.setup import ModelRecipe, build_chunks, compute_dtype, make_trainable  # noqa: E402
from megatron.loop.step import LossRule, train_step  # noqa: E402
from megatron.modeling.options import ModelOptions  # noqa: E402
from megatron.objectives.options import ObjectiveOptions  # noqa: E402
from megatron.objectives.registry import OBJECTIVES  # noqa: E402
from megatron.records.batch import Batch  # noqa: E402
from megatron.records.example import SequencePair  # noqa: E402
from megatron.records.special_tokens import SpecialTokens  # noqa: E402
from megatron.records.window import Window  # noqa: E402

VOCABULARY, LENGTH, DECODER_LENGTH, GLOBAL_BATCH = 100, 32, 12, 8
TINY = {"num_layers": 4, "hidden_size": 32, "num_attention_heads": 4, "make_vocab_size_divisible_by": 64}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run: its layout, what differs from the tiny model, and what it loads or saves."""

    name: str
    layout: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    architecture: str = "causal_decoder"
    objective: str | None = None  # None: running text with random inputs and documents
    backend: str = "sdpa"
    micro_batch_size: int = 2
    first_step: int = 0
    steps: int = 20
    reset_documents: bool = False
    seed: int = 1
    poisoned_step: int | None = None
    load: str | None = None
    save: str | None = None


def rows_of(step: int, case: Case) -> list[Any]:
    """The global batch of a step, the same whatever the layout."""
    architecture = ARCHITECTURES[case.architecture]()
    rng = np.random.default_rng(step)
    rules = RowRules(
        seq_length=LENGTH, decoder_seq_length=DECODER_LENGTH, end_token=0, reset_attention_mask=case.reset_documents
    )
    if case.objective:
        special = SpecialTokens(
            end=0, sentinels=tuple(range(99, 79, -1)), mode_tokens=(70, 71, 72), fim_tokens=(73, 74, 75)
        )
        objective = OBJECTIVES[case.objective].build(ObjectiveOptions(), special, architecture.room(rules))
    rows = []
    for number in range(GLOBAL_BATCH):
        if case.objective:
            tokens = rng.integers(1, 70, objective.window_length, dtype=np.int32)
            window = Window(tokens, np.zeros(0, np.int32))
            rows.append(architecture.arrange(objective(window, Draws(1000 * step + number)), rules))
            continue
        tokens = rng.integers(0, VOCABULARY, LENGTH + 1, dtype=np.int32)
        starts = np.sort(rng.choice(LENGTH, 2, replace=False)).astype(np.int32)
        inputs, targets = np.split(tokens, [int(rng.integers(0, LENGTH // 2))])
        rows.append(architecture.arrange([SequencePair(inputs, targets, starts)], rules))
    return rows


def batches_of(step: int, case: Case, grid: grids.Grid) -> list[Batch]:
    rows, size = rows_of(step, case), case.micro_batch_size
    starts = range(grid.data_rank * size, GLOBAL_BATCH, size * grid.data_size)
    return [collate(rows[first : first + size]) for first in starts]


def run(case: Case, grid: grids.Grid, layout: LayoutOptions) -> dict[str, Any]:
    architecture = ARCHITECTURES[case.architecture]()
    model = ModelOptions(**{**TINY, **case.model})
    recipe = ModelRecipe(
        architecture=architecture,
        model=model,
        vocabulary_size=VOCABULARY,
        max_positions=LENGTH,
        seed=case.seed,
        lengths=(LENGTH, DECODER_LENGTH),
    )
    options = OptimizerOptions(**{"lr": 5e-4, **case.optimizer})
    _, attend = choose_backend(case.backend)
    config, chunks = build_chunks(recipe, layout, grid, DEVICE, compute_dtype(options), attend)
    trainable = make_trainable(config, chunks, layout, options)
    if case.load:
        load_newest(Path(case.load), grid, chunks, trainable.inner_optimizer)
    rule = LossRule(architecture=architecture, vocabulary_size=VOCABULARY, z_loss_coeff=options.z_loss_coeff)
    losses, norms, nonfinite, skipped = [], [], [], 0
    for step in range(case.first_step, case.first_step + case.steps):
        poison = _poison(chunks) if step == case.poisoned_step and grid.rank == grid.world_size - 1 else None
        result = train_step(
            trainable, batches_of(step, case, grid), rule, grid, DEVICE, dropout_seed=step, learning_rate=options.lr
        )
        if poison is not None:
            poison.remove()
        total, count = result.losses["lm loss"]
        nonfinite.append(result.nonfinite)
        losses.append(total / count)
        norms.append(result.grad_norm)
        skipped += result.overflow
    if case.save:
        progress = Progress(iteration=case.first_step + case.steps)
        contents = Contents(progress=progress, run={}, tokenizer={}, lineage=[], optimizer=_scalars(trainable))
        saver = Saver(CheckpointOptions(save=case.save), Path(case.save), trainable, grid, lambda line: None)
        saver.save(contents, wait=True)
    return {
        "losses": losses,
        "norms": norms,
        "skipped": skipped,
        "nonfinite": nonfinite,
        "checkpoint": _digests(case),
        "weights_follow_masters": _weights_follow_masters(trainable, grid),
    }


def _weights_follow_masters(trainable: Any, grid: grids.Grid) -> bool:
    """Whether all data-parallel ranks hold the same weights, each the rounded master weight of its owner."""
    optimizer = trainable.inner_optimizer
    mine = hashlib.sha256()
    follows = True
    for parameter in (p for chunk in trainable.chunks for p in chunk.parameters()):
        mine.update(parameter.detach().view(-1).view(torch.uint8).numpy().tobytes())
        owned, master = _owned_master(optimizer, parameter)
        if master is not None:
            follows &= torch.equal(parameter.view(-1)[owned], master.view(-1).to(parameter.dtype))
    seen: list[Any] = [None] * grid.data_size
    dist.all_gather_object(seen, mine.hexdigest(), grid.data_group)
    verdicts: list[Any] = [None] * grid.world_size
    dist.all_gather_object(verdicts, follows and len(set(seen)) == 1)
    return all(verdicts)


def _owned_master(optimizer: Any, parameter: torch.nn.Parameter) -> tuple[slice, torch.Tensor | None]:
    """The elements of a parameter whose master weights this rank holds, and these."""
    if not hasattr(optimizer, "gbuf_ranges"):
        return slice(None), optimizer.masters[parameter]
    if not any(parameter in bucket["param_map"] for r in optimizer.gbuf_ranges for b in r.values() for bucket in b):
        return slice(0), None
    owned = optimizer._get_model_param_range_map(parameter)["param"]
    return slice(owned.start, owned.end), optimizer._get_main_param_and_optimizer_states(parameter)["param"]


def _poison(chunks: list[torch.nn.Module]) -> Any:
    """One gradient of this rank becomes NaN, as a broken device would make it."""
    parameter = next(p for name, p in chunks[0].named_parameters() if name.endswith("linear_fc2.weight"))
    return parameter.register_hook(lambda gradient: gradient * float("nan"))


def _scalars(trainable: Any) -> dict[str, Any]:
    from megatron.checkpoint.state import scalar_optimizer_state

    return scalar_optimizer_state(trainable.inner_optimizer)


def _digests(case: Case) -> dict[str, str]:
    """SHA-256 of every whole tensor of the saved checkpoint, read back without megatron-core."""
    if not case.save or dist.get_rank() != 0:
        return {}
    from safetensors.torch import load_file

    (folder,) = Path(case.save).glob("iter_*")
    manifest = read_manifest(folder)
    files = {name: load_file(folder / name) for name in manifest.files}
    digests = {}
    for key, entry in manifest.tensors.items():
        whole = torch.full(entry.shape, float("nan"))
        for piece in entry.pieces:
            box = tuple(slice(o, o + n) for o, n in zip(piece.offset, piece.shape, strict=True))
            whole[box] = files[piece.file][piece.name].float()
        assert not whole.isnan().any(), key
        digests[key] = hashlib.sha256(whole.numpy().tobytes()).hexdigest()
    return digests


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    store = next(dist.rendezvous("env://"))[0]
    results = {}
    cases = [Case(**description) for description in job["cases"]]
    for number, (wanted, group) in enumerate(itertools.groupby(cases, key=lambda case: case.layout)):
        dist.init_process_group(
            "gloo",
            store=dist.PrefixStore(f"world{number}", store),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
        layout = LayoutOptions(**wanted)
        grid = grids.initialise(layout, DEVICE)
        for case in group:
            results[case.name] = run(case, grid, layout)
        dist.barrier()
        grids.shut_down()
        gc.collect()  # models hold groups in cycles, and each group has threads
    if os.environ["RANK"] == "0":
        Path(job["output"]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
