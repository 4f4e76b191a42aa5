"""The command that turns data sets into prompts."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence

from megatron.basics.option import Options
from megatron.cli.file_checks import unwritable
from megatron.cli.flags import parse
from megatron.cli.preprocess import leave_on_signals
from megatron.finetuning.options import TaskOptions, TaskOutputOptions

DESCRIPTION = (
    "Turn the data sets of a mixture into prompts: inputs and targets as token files for finetune_t0.py, and lines of "
    "JSON for evaluation. Examples that are evaluated on are left out of training."
)
SECTIONS: dict[str, type[Options]] = {"tasks": TaskOptions, "output": TaskOutputOptions}
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError and RunFault."""
    arguments = sys.argv[1:] if argv is None else argv
    sections = parse(arguments, SECTIONS, description=DESCRIPTION, rules=(_folders_are_there, _output_can_be_written))
    tasks: TaskOptions = sections["tasks"]
    output: TaskOutputOptions = sections["output"]
    if tasks.data_dir is not None:
        os.environ.update(dict.fromkeys(OFFLINE, "1"))  # the library reads it when it is imported
    from megatron.finetuning.preparation import prepare  # --help does without numpy and the tokenizer libraries
    from megatron.finetuning.preparation_report import DATA_FILE, markdown
    from megatron.tokenization.tokenizer import load_tokenizer

    with leave_on_signals(signal.SIGTERM, signal.SIGINT):
        tokenizer = load_tokenizer(output.tokenizer_type, output.tokenizer_model)
        preparation = prepare(tasks, output, tokenizer)
    print("\n".join(markdown(preparation)))
    if preparation.rendered:
        rate = preparation.rendered / max(preparation.seconds, 1e-9)
        workers = preparation.settings.workers
        print(
            f"{preparation.rendered:,} prompts in {preparation.seconds:.1f} s "
            f"({rate:,.0f} a second, {workers} worker{'s' if workers > 1 else ''})"
        )
    if preparation.kept_from_before:
        print(f"{preparation.kept_from_before} splits were ready before")
    print(f"Train with finetune_t0.py --config {preparation.settings.folder / DATA_FILE}")


def _folders_are_there(tasks: TaskOptions) -> Iterator[str]:
    """Templates and data can be looked for."""
    for flag, path in (("--templates", tasks.templates), ("--data-dir", tasks.data_dir)):
        if path is not None and not os.path.isdir(path):
            yield f"{flag} {path} is not a folder; check the path."


def _output_can_be_written(output: TaskOutputOptions) -> Iterator[str]:
    """The end of hours of work has a place."""
    yield from unwritable("--output-folder", str(output.output_folder))
