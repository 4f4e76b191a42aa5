"""The command that lets a trained model write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.basics.errors import UserError
from megatron.basics.option import Options
from megatron.cli.file_checks import unwritable
from megatron.cli.flags import parse
from megatron.cli.start_up import quiet_libraries
from megatron.cli.trained_model import load_model, pinned, read_record, run_folder_exists
from megatron.evaluation.options import GenerationOptions, TrainedModelOptions

if TYPE_CHECKING:
    from megatron.cli.run_config import RunConfig
    from megatron.device.device import Device
    from megatron.layout.grid import Grid
    from megatron.tokenization.tokenizer import Tokenizer

DESCRIPTION = "Write on from prompts with a trained model; alone or under torchrun, on any layout."
SECTIONS: dict[str, type[Options]] = {"trained_model": TrainedModelOptions, "generation": GenerationOptions}
PASSES_OF_A_PORTION = 4


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError and RunFault."""
    sections = parse(
        sys.argv[1:] if argv is None else argv,
        SECTIONS,
        description=DESCRIPTION,
        rules=(_prompts_given, _output_is_new, run_folder_exists),
    )
    trained: TrainedModelOptions = sections["trained_model"]
    options: GenerationOptions = sections["generation"]
    quiet_libraries()
    from megatron.device.device import choose_device, require_supported_versions

    require_supported_versions()
    device = choose_device(trained.device)
    trained = pinned(trained)
    config, tokenizer = read_record(trained)
    from megatron.evaluation.same_requests import require_same_work
    from megatron.layout import grid as grids

    grid = grids.initialise(config.layout, device)
    try:
        require_same_work(
            {
                "the checkpoint": trained.load_iteration,
                "its settings": config.as_dict(),
                "flags": asdict(replace(options, output_path=None)),
            },
            grid,
        )
        _generate(trained, options, config, tokenizer, device, grid)
    finally:
        grids.shut_down()


def _prompts_given(generation: GenerationOptions) -> Iterator[str]:
    """A person at a terminal would wait for a command that waits for them."""
    if not generation.prompt and sys.stdin.isatty():
        yield "--prompt is missing; give texts to go on from, or pipe lines into standard input."
    for number, text in enumerate(generation.prompt, start=1):
        if any("\ud800" <= character <= "\udfff" for character in text):  # what the shell gave for other bytes
            yield f"--prompt number {number} is not UTF-8; convert it, with iconv for example."


def _output_is_new(generation: GenerationOptions) -> Iterator[str]:
    """What was written before is not overwritten, and there is a folder to write into."""
    path = generation.output_path
    if path and os.path.exists(path):
        yield f"--output-path {path} exists; name a new file or remove it."
    elif path:
        yield from unwritable("--output-path", str(Path(path).parent))


def _generate(
    trained: TrainedModelOptions,
    options: GenerationOptions,
    config: RunConfig,
    tokenizer: Tokenizer,
    device: Device,
    grid: Grid,
) -> None:
    """Hand over each prompt with what the model adds to it. A collective."""
    from megatron.basics.progress import progress
    from megatron.cli.wire import prompt_rows_of
    from megatron.cli.written_texts import WrittenTexts
    from megatron.evaluation.generate import check_lengths, generate

    prompt_rows = prompt_rows_of(config, tokenizer)
    encode = tokenizer.encode_with_special if options.special_tokens else tokenizer.encode
    written = WrittenTexts(options, tokenizer, prompt_rows.rules.end_token)
    texts = _prompts(options, grid)
    prompts = [prompt_rows.prompt(encode(text)) for text in texts]
    check_lengths(prompts, options, prompt_rows)
    chunks, _ = load_model(trained, config, tokenizer, device, grid)
    # Texts of similar length go through the model at once; whoever ends the command keeps the portions before.
    portion = PASSES_OF_A_PORTION * grid.data_size * options.micro_batch_size
    total = -(-len(prompts) // grid.data_size) * options.max_new_tokens
    with progress("generate", total, "token") if grid.is_main else nullcontext() as bar:
        for first in range(0, len(prompts), portion):
            own = prompts[first : first + portion]
            new_tokens = generate(
                chunks,
                grid,
                device,
                own,
                options,
                prompt_rows,
                vocabulary_size=tokenizer.vocabulary_size,
                first_number=first,
                stop=written.has_ended,
                advance=bar.advance if bar else lambda _: None,
            )
            if grid.is_main:
                written.hand_over(texts[first : first + portion], own, new_tokens)


def _prompts(options: GenerationOptions, grid: Grid) -> list[str]:
    """--prompt, or the lines of standard input: rank 0 reads them for all."""
    import torch.distributed as dist

    if options.prompt:
        return options.prompt
    content: list[bytes] = [sys.stdin.buffer.read() if grid.is_main else b""]
    dist.broadcast_object_list(content, src=0)
    try:
        lines = content[0].decode().replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        number = content[0][: error.start].count(b"\n") + 1
        raise UserError(f"line {number} of standard input is not UTF-8; convert it, with iconv for example.") from error
    if not content[0]:
        raise UserError("--prompt is missing and standard input is empty; give texts to go on from.")
    return lines
