"""Trains one step on several layouts in one torchrun job, and writes what each rank sent and held, as JSON.

torchrun --nproc-per-node 4 plan_worker.py JOB.json: {"output": folder, "cases": [{"name", "layout", "model", ...}]},
the cases being those of layout_worker.py. Each rank writes RANK.json: by case {"sent": {operation and ranks: bytes},
"memory": {part: bytes}, "groups", "pipeline_rank"}.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d

SENT: Counter[str] = Counter()  # "operation [ranks]" -> bytes
COUNTED = {
    "all_reduce": ("all-reduce", 0, "tensor"),
    "broadcast": ("broadcast", 0, "tensor"),
    "all_gather_into_tensor": ("all-gather", 0, "output_tensor"),
    "reduce_scatter_tensor": ("reduce-scatter", 1, "input"),
    "isend": ("send", 0, "tensor"),
}
NEVER_USED = ("all_gather", "reduce_scatter", "all_to_all_single", "send", "reduce", "gather", "scatter")
IS_COUNTING = [False]


def count(name: str) -> None:
    """Put a function around one of torch.distributed's that adds its payload to SENT; before megatron-core has it."""
    real = getattr(dist, name)

    def counted(*words: Any, **options: Any) -> Any:
        if not IS_COUNTING[0]:
            return real(*words, **options)
        assert name in COUNTED, f"{name} is not expected in a step"
        operation, position, keyword = COUNTED[name]
        groups = [word for word in (*words, *options.values()) if isinstance(word, dist.ProcessGroup)]
        ranks = dist.get_process_group_ranks(groups[0]) if groups else list(range(dist.get_world_size()))
        payload = words[position] if len(words) > position else options[keyword]
        if len(ranks) > 1:
            SENT[f"{operation} {'to' if name == 'isend' else ranks}"] += payload.numel() * payload.element_size()
        IS_COUNTING[0] = False  # some of these functions call others of them
        try:
            return real(*words, **options)
        finally:
            IS_COUNTING[0] = True

    setattr(dist, name, counted)
    setattr(distributed_c10d, name, counted)


for function_name in (*COUNTED, *NEVER_USED):
    count(function_name)

import torch  # noqa: E402
from layout_worker import (  # noqa: E402
    DECODER_LENGTH,
    DEVICE,
    LENGTH,
    TINY,
    VOCABULARY,
    Case,
    batches_of,
)

from megatron.architectures.registry import ARCHITECTURES  # noqa: E402
from megatron.attention.registry import choose_backend  # noqa: E402
from megatron.layout import grid as grids  # noqa: E402
from megatron.layout.options import LayoutOptions  # noqa: E402
from megatron.loop.options import OptimizerOptions  # noqa: E402
from megatron.loop.setup import ModelRecipe, TrainableModel, build_chunks, compute_dtype, make_trainable  # noqa: E402
from megatron.loop.step import LossRule, train_step  # noqa: E402
from megatron.modeling.options import ModelOptions  # noqa: E402
from megatron.records.batch import Batch  # noqa: E402


class Kept:
    """Storages that autograd holds for the backward pass, and the most bytes of them at any time."""

    def __init__(self, ignored: list[torch.Tensor]) -> None:
        self.ignored = {tensor.untyped_storage().data_ptr() for tensor in ignored}
        self.holders: Counter[int] = Counter()
        self.sizes: dict[int, int] = {}
        self.held = self.most = 0

    def pack(self, tensor: torch.Tensor) -> Any:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place in self.ignored:
            return tensor
        return Held(self, tensor, place, storage.nbytes())


class Held:
    """One saved tensor; it counts until autograd lets it go."""

    def __init__(self, kept: Kept, tensor: torch.Tensor, place: int, size: int) -> None:
        self.kept, self.tensor, self.place, self.size = kept, tensor, place, size
        kept.holders[place] += 1
        if kept.holders[place] == 1:
            kept.held += size
            kept.most = max(kept.most, kept.held)

    def __del__(self) -> None:
        self.kept.holders[self.place] -= 1
        if not self.kept.holders[self.place]:
            self.kept.held -= self.size


@contextmanager
def counting() -> Iterator[None]:
    SENT.clear()
    IS_COUNTING[0] = True
    yield
    IS_COUNTING[0] = False


def storage_bytes(tensors: list[torch.Tensor]) -> int:
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def held_by(model: TrainableModel) -> dict[str, int]:
    parameters = [p for chunk in model.chunks for p in chunk.parameters()]
    states = [
        value for state in model.inner_optimizer.optimizer.state.values() for value in state.values() if value.dim()
    ]
    weights = {p.untyped_storage().data_ptr() for p in parameters}
    masters = [p for group in model.inner_optimizer.optimizer.param_groups for p in group["params"]]
    masters = [p for p in masters if p.untyped_storage().data_ptr() not in weights]
    return {
        "weights": storage_bytes(parameters),
        "gradients": storage_bytes([p.main_grad for p in parameters]),
        "optimizer": storage_bytes([*states, *masters]),
    }


def run(case: Case, grid: grids.Grid, layout: LayoutOptions) -> dict[str, Any]:
    architecture = ARCHITECTURES[case.architecture]()
    recipe = ModelRecipe(
        architecture=architecture,
        model=ModelOptions(**{**TINY, **case.model}),
        vocabulary_size=VOCABULARY,
        max_positions=LENGTH,
        seed=case.seed,
        lengths=(LENGTH, DECODER_LENGTH),
    )
    options = OptimizerOptions(**case.optimizer)
    _, attend = choose_backend(case.backend)
    config, chunks = build_chunks(recipe, layout, grid, DEVICE, compute_dtype(options), attend)
    model = make_trainable(config, chunks, layout, options)
    rule = LossRule(architecture=architecture, vocabulary_size=VOCABULARY, z_loss_coeff=options.z_loss_coeff)
    ask_nothing = lambda: (False, False, False)  # noqa: E731

    def step(number: int) -> None:
        batches: list[Batch] = batches_of(number, case, grid)
        train_step(model, batches, rule, grid, DEVICE, dropout_seed=number, learning_rate=options.lr, asks=ask_nothing)

    parameters: list[torch.Tensor] = [p for chunk in chunks for p in chunk.parameters()]
    kept = Kept([p.data for p in parameters])
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda held: getattr(held, "tensor", held)):
        step(0)
    with counting():  # a step that is not the first: overlapped gathers begin with the second
        step(1)
    return {"sent": dict(SENT), "memory": {**held_by(model), "activations": kept.most}, "groups": groups_of(grid)}


def groups_of(grid: grids.Grid) -> dict[str, list[int]]:
    groups = {"tensor": grid.tensor_group, "pipeline": grid.pipeline_group, "data": grid.data_group}
    return {name: dist.get_process_group_ranks(group) for name, group in groups.items()}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    store = next(dist.rendezvous("env://"))[0]
    results = {}
    for number, description in enumerate(job["cases"]):
        case = Case(**description)
        dist.init_process_group(
            "gloo",
            store=dist.PrefixStore(f"case{number}", store),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
        layout = LayoutOptions(**case.layout)
        grid = grids.initialise(layout, DEVICE)
        results[case.name] = {"pipeline_rank": grid.pipeline_rank, **run(case, grid, layout)}
        dist.barrier()
        grids.shut_down()
    Path(job["output"], f"{os.environ['RANK']}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
