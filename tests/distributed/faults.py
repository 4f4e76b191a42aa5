"""What may go wrong in a rank, on purpose: at the n-th call of a function, or at the n-th step of its work on disk."""

import errno
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS_ASLEEP = 1.5
POISONED = "decoder.layers.0.mlp.linear_fc2.weight"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """at: "module:function", "gradient" or "disk". call: which one, from 1. do: "sleep", or a signal or errno by name.

    "listing": this rank does not see the newest `call` checkpoints of any run folder, as on a stale shared file system.

    "elsewhere": this rank works in `folder`, so that what it calls --save run is not what the others call so.

    "gradient": after the backward passes of that step one number of this rank's gradient becomes NaN.

    "disk" counts what changes names or makes bytes durable under `folder`: open for writing, write, fsync, rename,
    remove, make and remove a folder, and the middle of a safetensors file. Nothing of the n-th one has happened yet.
    With call 0 nothing goes wrong, and every step is written to `record`.
    """

    at: str
    call: int
    do: str = "SIGKILL"
    rank: int = 0
    folder: str = ""
    record: str = ""


def arm(fault: Fault) -> None:
    """Let `fault` happen in this process."""
    if fault.at == "disk":
        _watch_disk(fault)
    elif fault.at == "listing":
        _hide_checkpoints(fault.call)
    elif fault.at == "elsewhere":
        os.chdir(fault.folder)
        importlib.import_module("megatron.cli.run_folder").SECONDS_TO_SEE = 0.1
    elif fault.at == "gradient":
        _poison_gradient(fault.call)
    else:
        module, _, name = fault.at.partition(":")
        _count_calls(importlib.import_module(module), name, _Counter(fault))


class _Counter:
    def __init__(self, fault: Fault) -> None:
        self.fault, self.count = fault, 0
        self.is_busy = False

    def step(self, what: str = "") -> None:
        self.count += 1
        if self.fault.record:
            with open(self.fault.record, "a") as file:
                file.write(what + "\n")
        if self.count == self.fault.call:
            _go_wrong(self.fault.do)


def _go_wrong(do: str) -> None:
    if do.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[do])
    elif do == "sleep":
        time.sleep(SECONDS_ASLEEP)
    else:
        number = getattr(errno, do)
        raise OSError(number, os.strerror(number))


def _count_calls(owner: Any, name: str, counter: _Counter, place: Callable[..., str | None] = lambda *_: "") -> None:
    original = getattr(owner, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        where = place(*arguments)
        if where is not None:
            counter.step(f"{name} {where}")
        return original(*arguments, **options)

    setattr(owner, name, counted)


def _hide_checkpoints(count: int) -> None:
    folders = importlib.import_module("megatron.checkpoint.folders")
    checkpoints_of = folders.checkpoints_of
    folders.checkpoints_of = lambda run_folder: checkpoints_of(run_folder)[:-count]


def _poison_gradient(call: int) -> None:
    step = importlib.import_module("megatron.loop.step")
    run_schedule, calls = step.run_schedule, []

    def poisoned(chunks: Any, *arguments: Any, **options: Any) -> Any:
        outputs = run_schedule(chunks, *arguments, **options)
        calls.append(None)
        if len(calls) == call:
            parameter = dict(chunks[0].module.named_parameters())[POISONED]
            parameter.main_grad.view(-1)[0] = float("nan")
        return outputs

    step.run_schedule = poisoned


def _watch_disk(fault: Fault) -> None:
    counter, folder = _Counter(fault), os.path.realpath(fault.folder)

    def inside(path: Any) -> str | None:
        """The path within the watched folder, or None; event files of TensorBoard come from a thread of their own."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}") if path >= 0 else ""
        path = os.path.abspath(os.fsdecode(path))
        return path if path.startswith(folder) and "/tensorboard" not in path else None

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        if counter.is_busy or not _is_change(event, arguments):
            return
        anchor = arguments[-1] if event in ("os.remove", "os.rmdir") else -1
        base = os.readlink(f"/proc/self/fd/{anchor}") if anchor >= 0 else ""
        where = inside(os.path.join(base, os.fsdecode(arguments[0])))
        if where is not None:
            counter.step(f"{event} {where}")

    sys.addaudithook(on_event)
    _count_calls(os, "fsync", counter, inside)
    _count_calls(os, "write", counter, lambda descriptor, _: inside(descriptor))
    _halve_tensor_files(counter)


def _is_change(event: str, arguments: tuple[Any, ...]) -> bool:
    if arguments and isinstance(arguments[0], int):  # an open file: its bytes are counted when they become durable
        return False
    if event == "open":
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if event == "os.mkdir":
        return not os.path.isdir(arguments[0])
    return event in ("os.rename", "os.remove", "os.rmdir", "os.truncate")


def _halve_tensor_files(counter: _Counter) -> None:
    """safetensors writes in native code: stop once before its file exists, and once with half of it written."""
    shards = importlib.import_module("megatron.checkpoint.shards")
    save_file = shards.save_file

    def save_halfway(tensors: Any, path: Path) -> None:
        counter.step(f"save_file {path}")
        counter.is_busy = True  # what follows is ours
        save_file(tensors, path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        counter.step(f"half of {path}")
        path.write_bytes(content)
        counter.is_busy = False

    shards.save_file = save_halfway
