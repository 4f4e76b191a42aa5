"""Imports the trainer once, and runs every command line it is told in fresh children: a start costs no imports.

Reads one JSON object a line: {"architecture", "words", "ranks", "output", "faults", "port", "file_size"}; answers with
the process ids of the ranks, then, when all have ended, with their exit codes. Like torchrun, it ends the others when
one has failed.
"""

import json
import os
import resource
import signal
import sys
import time
from typing import Any

from megatron.basics.errors import exit_on_user_error
from megatron.device.device import choose_device

choose_device("cpu")  # must come before megatron.core is imported

import torch.utils.tensorboard  # noqa: E402, F401 - all that a child needs is imported here
from faults import Fault, arm  # noqa: E402

import megatron.cli.training  # noqa: E402, F401
from megatron.cli.adapt import adapt  # noqa: E402
from megatron.cli.finetune import PURPOSE  # noqa: E402
from megatron.cli.pretrain import pretrain  # noqa: E402

SECONDS_TO_END = 30.0
OBJECTIVES = {"causal_decoder": "full_lm", "prefix_decoder": "prefix_lm", "encoder_decoder": "span_corruption"}


def fork_rank(job: dict[str, Any], rank: int) -> int:
    """Start one rank; in the child this never returns."""
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
    output = os.open(f"{job['output']}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(job["ranks"])}
    if job["ranks"] > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(job["port"])}
    if job["file_size"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_size"], job["file_size"]))
    for fault in job["faults"]:
        if fault["rank"] == rank:
            arm(Fault(**fault))
    sys.argv[1:] = job["words"]
    if job["architecture"] is None:
        exit_on_user_error(lambda: adapt(job["words"]))
    if job["architecture"] == "finetune_t0":
        exit_on_user_error(lambda: adapt(job["words"], PURPOSE))
    exit_on_user_error(lambda: pretrain(job["words"], job["architecture"], OBJECTIVES[job["architecture"]]))


def wait_for(ranks: list[int]) -> list[int]:
    """Exit codes in the order of the ranks, negative for a signal."""
    codes: dict[int, int] = {}
    deadline = float("inf")
    while len(codes) < len(ranks):
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            codes[ended] = os.waitstatus_to_exitcode(status)
            if codes[ended] != 0 and deadline == float("inf"):
                deadline = time.monotonic() + SECONDS_TO_END
                for rank in set(ranks) - set(codes):
                    os.kill(rank, signal.SIGTERM)
        elif time.monotonic() > deadline:
            for rank in set(ranks) - set(codes):
                os.kill(rank, signal.SIGKILL)
        else:
            time.sleep(0.01)
    return [codes[rank] for rank in ranks]


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        ranks = [fork_rank(job, rank) for rank in range(job["ranks"])]
        print(json.dumps(ranks), flush=True)
        print(json.dumps(wait_for(ranks)), flush=True)


if __name__ == "__main__":
    main()
