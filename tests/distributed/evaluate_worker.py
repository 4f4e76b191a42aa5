"""tools/evaluate.py many times in the same processes, for test_evaluate_command.py.

torchrun --nproc-per-node N evaluate_worker.py JOBS.json: a list of {"words", "alone", "answers", "study"}. `alone` is a
world of one, the main rank's. {rank} in a word is the rank's own. What a rank was refused stands in `answers`.
`study` names the tasks of --eai-eval.
"""

import json
import os
import sys
from pathlib import Path

from megatron.device.device import choose_device

choose_device("cpu")  # must come before megatron.core is imported

import torch.distributed as dist  # noqa: E402

from megatron.basics.errors import UserError  # noqa: E402
from megatron.cli import evaluate  # noqa: E402
from megatron.evaluation.eai_eval import EaiTask  # noqa: E402


def main() -> None:
    store = next(dist.rendezvous("env://"))[0]
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    port = os.environ.pop("MASTER_PORT")  # the groups come from here
    for number, job in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        os.environ["WORLD_SIZE"] = "1" if job["alone"] else str(world_size)
        if job["alone"] and rank:
            continue
        if not job["alone"]:
            shared = dist.PrefixStore(f"world{number}", store)
            dist.init_process_group("gloo", store=shared, rank=rank, world_size=world_size)
        evaluate.EAI_TASKS = [EaiTask(name, name, 0.5) for name in job["study"]]
        try:
            evaluate.main([word.format(rank=rank) for word in job["words"]])
        except UserError as error:
            Path(job["answers"], f"{rank}.txt").write_text(str(error))
    os.environ["MASTER_PORT"] = port


if __name__ == "__main__":
    main()
