"""The vocabulary-parallel loss on one tensor-parallel size, for test_parallel_loss.py: writes sums and gradients.

torchrun --nproc-per-node TP loss_worker.py JOB.pt RESULT.pt; the job holds whole logits [s, b, v], labels and a mask.
"""

import os
import sys
from typing import Any

from megatron.device.device import choose_device

DEVICE = choose_device("cpu")  # must come before megatron.core is imported

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from megatron.layout import grid as grids  # noqa: E402
from megatron.layout.options import LayoutOptions  # noqa: E402
from megatron.losses.log_probabilities import log_probabilities  # noqa: E402
from megatron.losses.token_cross_entropy import token_cross_entropy  # noqa: E402
from megatron.records.batch import Batch, Visibility  # noqa: E402


def losses_of(job: dict[str, Any], grid: grids.Grid) -> dict[int, dict[str, torch.Tensor]]:
    """For each vocabulary size every rank's sum of losses, the count, and the whole gradient in the logits."""
    results = {}
    for vocabulary_size in job["vocabulary_sizes"]:
        labels = job["labels"] % vocabulary_size
        nothing = Visibility(torch.zeros(*labels.shape, 2, dtype=torch.int32), labels.shape[1])
        batch = Batch(tokens=labels, labels=labels, loss_mask=job["loss_mask"], position_ids=labels, visibility=nothing)
        own = job["logits"].chunk(grid.tensor_size, -1)[grid.tensor_rank].clone().requires_grad_()
        loss = token_cross_entropy(own * 1, batch, grid, vocabulary_size=vocabulary_size, z_loss_coeff=1e-2)
        (gradient,) = torch.autograd.grad(loss.total, own)
        parts = [torch.empty_like(gradient) for _ in range(grid.tensor_size)]
        dist.all_gather(parts, gradient, group=grid.tensor_group)
        totals = [torch.empty(()) for _ in range(grid.tensor_size)]
        dist.all_gather(totals, loss.total.detach(), group=grid.tensor_group)
        results[vocabulary_size] = {
            "totals": torch.stack(totals),
            "count": loss.count,
            "gradient": torch.cat(parts, -1),
            "answers": answers_of(job, grid, vocabulary_size),
        }
    return results


def answers_of(job: dict[str, Any], grid: grids.Grid, vocabulary_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of every token at every position [n], from rounded logits [n, v], many of which are equal."""
    logits = job["logits"].flatten(0, 1).round()
    positions, tokens = torch.cartesian_prod(torch.arange(len(logits)), torch.arange(vocabulary_size)).t()
    own = logits.chunk(grid.tensor_size, -1)[grid.tensor_rank].clone()
    return log_probabilities(own, positions, tokens, grid, vocabulary_size=vocabulary_size)


def main() -> None:
    grid = grids.initialise(LayoutOptions(tensor_model_parallel_size=int(os.environ["WORLD_SIZE"])), DEVICE)
    results = losses_of(torch.load(sys.argv[1]), grid)
    if grid.is_main:
        torch.save(results, sys.argv[2])
    grids.shut_down()


if __name__ == "__main__":
    main()
