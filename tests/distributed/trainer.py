"""Training jobs for tests that need many of them: ranks are children of one process that has imported everything."""

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from faults import Fault
from launch import environment_for


@dataclass(frozen=True)
class Ended:
    """codes: exit code of each rank, negative for the signal that ended it. output: all they printed, rank by rank."""

    codes: list[int]
    output: str

    @property
    def code(self) -> int:
        (code,) = self.codes
        return code

    @property
    def errors(self) -> list[str]:
        return [line for line in self.output.splitlines() if line.startswith("error")]


class Job:
    """Ranks that run."""

    def __init__(self, trainer: "Trainer", ranks: list[int], output: Path) -> None:
        self.trainer, self.ranks, self.output = trainer, ranks, output

    def printed(self) -> str:
        return "".join(Path(f"{self.output}.{rank}").read_text() for rank in range(len(self.ranks)))

    def wait(self) -> Ended:
        return Ended(self.trainer.read(), self.printed())


class Trainer:
    """Starts jobs one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("trainer_worker.py"))],
            env=environment_for(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self,
        words: Sequence[str],
        *,
        architecture: str | None = "causal_decoder",
        ranks: int = 1,
        faults: Sequence[Fault] = (),
        file_size: int | None = None,
    ) -> Job:
        """The entry script of an architecture, adapt.py for None, or "finetune_t0", with these words on so many ranks.

        file_size: no file may become larger, in bytes.
        """
        self.jobs += 1
        output = self.folder / f"job{self.jobs}"
        job = {
            "architecture": architecture,
            "words": list(words),
            "ranks": ranks,
            "output": str(output),
            "faults": [asdict(fault) for fault in faults],
            "port": _free_port(),
            "file_size": file_size,
        }
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return Job(self, self.read(), output)

    def run(self, words: Sequence[str], **options: object) -> Ended:
        """start, and wait for the end."""
        return self.start(words, **options).wait()

    def finish(self, words: Sequence[str], **options: object) -> Ended:
        """run, and every rank must end well."""
        ended = self.run(words, **options)
        assert set(ended.codes) == {0}, ended.output[-4000:]
        return ended

    def read(self) -> list[int]:
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
