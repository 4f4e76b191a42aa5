"""Scores the same requests with the same weights on many layouts, for test_score_layouts.py.

torchrun --nproc-per-node 4 score_worker.py RESULT.json LAYOUT.json...: every rank's scores by layout and architecture.
"""

import gc
import json
import os
import sys
from pathlib import Path

from megatron.device.device import choose_device

DEVICE = choose_device("cpu")  # must come before megatron.core is imported

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from megatron.architectures.registry import ARCHITECTURES  # noqa: E402
from megatron.architectures.row_rules import RowRules  # noqa: E402
from megatron.attention.registry import choose_backend  # noqa: E402
from megatron.evaluation.prompt_rows import PromptRows  # noqa: E402
from megatron.evaluation.score import score  # noqa: E402
from megatron.evaluation.scored_rows import ScoreRequest  # noqa: E402
from megatron.layout import grid as grids  # noqa: E402
from megatron.layout.options import LayoutOptions  # noqa: E402
from megatron.loop.setup import ModelRecipe, build_chunks  # noqa: E402
from megatron.modeling.options import ModelOptions  # noqa: E402

VOCABULARY, LENGTH, DECODER_LENGTH = 60, 48, 16  # of 128 columns, so that ranks of four hold nothing but padding
MODEL = {
    "num_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "make_vocab_size_divisible_by": 128,
    "position_embedding_type": "relative",
    "init_method_std": 0.2,
}


def requests():
    """Lengths of all kinds; one that is longer than a row; some that share a context, or all but their last token."""
    rng = np.random.default_rng(0)
    lengths = [*zip(rng.integers(0, 50, 30), rng.integers(1, 12, 30), strict=True), (4, 120)]
    drawn = [ScoreRequest(*(tuple(rng.integers(2, VOCABULARY, n).tolist()) for n in pair)) for pair in lengths]
    shared = [ScoreRequest(tuple(range(2, 22)), (number, *range(30, 30 + number))) for number in range(2, 10)]
    return [*drawn, *shared, *(ScoreRequest((5, 6), (7, last)) for last in range(2, 6))]


def scores(architecture, grid, layout):
    recipe = ModelRecipe(
        architecture=ARCHITECTURES[architecture](),
        model=ModelOptions(**MODEL),
        vocabulary_size=VOCABULARY,
        max_positions=LENGTH,
        seed=1,
        lengths=(LENGTH, DECODER_LENGTH),
    )
    _, chunks = build_chunks(recipe, layout, grid, DEVICE, torch.float32, choose_backend("sdpa")[1])
    rows = PromptRows(
        architecture=recipe.architecture,
        rules=RowRules(seq_length=LENGTH, decoder_seq_length=DECODER_LENGTH, end_token=1),
        reads_running_text=False,
        ends_inputs=architecture != "causal_decoder",
    )
    found = score(chunks, grid, DEVICE, requests(), rows, vocabulary_size=VOCABULARY, micro_batch_size=2)
    return [(one.log_likelihood, one.is_greedy) for one in found]


def main() -> None:
    store = next(dist.rendezvous("env://"))[0]
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    results = {}
    for number, wanted in enumerate(sys.argv[2:]):
        dist.init_process_group(
            "gloo", store=dist.PrefixStore(f"world{number}", store), rank=rank, world_size=world_size
        )
        layout = LayoutOptions(**json.loads(wanted))
        grid = grids.initialise(layout, DEVICE)
        for architecture in ARCHITECTURES:
            everywhere = [None] * world_size
            dist.all_gather_object(everywhere, scores(architecture, grid, layout))
            results[f"{grid.describe()} {architecture}"] = everywhere
        dist.barrier()
        grids.shut_down()
        gc.collect()  # models hold groups in cycles, and each group has threads
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
