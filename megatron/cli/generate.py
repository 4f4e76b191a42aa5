"""The command that lets a trained model write."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from megatron.basics.errors import UserError
from megatron.basics.option import Options
from megatron.cli.flags import parse
from megatron.cli.start_up import quiet_libraries
from megatron.cli.trained_model import load_model, read_record, run_folder_exists
from megatron.evaluation.options import GenerationOptions, TrainedModelOptions

if TYPE_CHECKING:
    from megatron.cli.run_config import RunConfig
    from megatron.device.device import Device
    from megatron.layout.grid import Grid
    from megatron.tokenization.tokenizer import Tokenizer

DESCRIPTION = "Write on from prompts with a trained model; alone or under torchrun, on any layout."
SECTIONS: dict[str, type[Options]] = {"trained_model": TrainedModelOptions, "generation": GenerationOptions}
SEPARATOR = "-" * 8


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises UserError and RunFault."""
    sections = parse(
        sys.argv[1:] if argv is None else argv,
        SECTIONS,
        description=DESCRIPTION,
        rules=(_prompts_given, run_folder_exists),
    )
    trained: TrainedModelOptions = sections["trained_model"]
    options: GenerationOptions = sections["generation"]
    quiet_libraries()
    from megatron.device.device import choose_device, require_supported_versions

    require_supported_versions()
    device = choose_device(trained.device)
    config, tokenizer = read_record(trained)
    from megatron.layout import grid as grids

    grid = grids.initialise(config.layout, device)
    try:
        texts = _generate(trained, options, config, tokenizer, device, grid)
        if grid.is_main:
            print(f"\n{SEPARATOR}\n".join(texts))
    finally:
        grids.shut_down()


def _prompts_given(generation: GenerationOptions) -> Iterator[str]:
    """A person at a terminal would wait for a command that waits for them."""
    if not generation.prompt and sys.stdin.isatty():
        yield "--prompt is missing; give texts to go on from, or pipe lines into standard input."


def _generate(
    trained: TrainedModelOptions,
    options: GenerationOptions,
    config: RunConfig,
    tokenizer: Tokenizer,
    device: Device,
    grid: Grid,
) -> list[str]:
    """Each prompt with what the model adds to it. A collective."""
    from megatron.basics.progress import progress
    from megatron.cli.wire import prompt_rows_of
    from megatron.evaluation.generate import check_lengths, generate

    prompt_rows = prompt_rows_of(config, tokenizer)
    encode = tokenizer.encode_with_special if options.special_tokens else tokenizer.encode
    decode = tokenizer.decode_with_special if options.special_tokens else tokenizer.decode
    prompts = [encode(text) or [tokenizer.eod_id] for text in _prompts(options, grid)]
    check_lengths(prompts, options, prompt_rows)
    chunks = load_model(trained, config, tokenizer, device, grid)
    total = -(-len(prompts) // grid.data_size) * options.max_new_tokens
    with progress("generate", total, "token") if grid.is_main else nullcontext() as bar:
        new_tokens = generate(
            chunks,
            grid,
            device,
            prompts,
            options,
            prompt_rows,
            vocabulary_size=tokenizer.vocabulary_size,
            advance=bar.advance if bar else lambda _: None,
        )
    return [decode([*old, *new]) for old, new in zip(prompts, new_tokens, strict=True)]


def _prompts(options: GenerationOptions, grid: Grid) -> list[str]:
    """--prompt, or the lines of standard input: rank 0 reads them for all."""
    import torch.distributed as dist

    if options.prompt:
        return options.prompt
    lines: list[list[str]] = [[]]
    if grid.is_main:
        lines = [[line.rstrip("\n") for line in sys.stdin]]
    dist.broadcast_object_list(lines, src=0)
    if not lines[0]:
        raise UserError("--prompt is missing and standard input is empty; give texts to go on from.")
    return lines[0]
