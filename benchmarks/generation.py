"""Tokens a second that a model writes on CPU: ours beside transformers, both with a cache, in one process and in turns.

    python -m benchmarks.generation                                     8 prompts at once
    python -m benchmarks.generation --batch 1 --model t5

8.5 million parameters (t5: 9.4), vocabulary 8192, float32, greedy. The weights of transformers' random model are read
by our rules of its family, so both have to write the same tokens. Prompts are of one length, since padding is not ours
to measure, and no text ends early.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
import transformers
from torch import nn

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.attention.registry import choose_backend
from megatron.basics.errors import RunFault
from megatron.cli.start_up import quiet_libraries
from megatron.conversion.registry import FAMILIES
from megatron.conversion.rules import expand
from megatron.device.device import Device, choose_device
from megatron.evaluation.generate import generate
from megatron.evaluation.options import GenerationOptions
from megatron.evaluation.prompt_rows import PromptRows
from megatron.layout.grid import Grid
from megatron.layout.initial_weights import global_names
from megatron.layout.options import LayoutOptions
from megatron.loop.setup import ModelRecipe, build_chunks

VOCABULARY, POSITIONS = 8192, 512
NO_TOKEN = VOCABULARY + 1
Write = Callable[[list[list[int]]], list[list[int]]]
SETTINGS: Mapping[str, dict[str, object]] = {
    "gpt2": {"n_positions": POSITIONS, "n_embd": 256, "n_layer": 8, "n_head": 4},
    "llama": {
        "max_position_embeddings": POSITIONS,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "tie_word_embeddings": True,
    },
    "t5": {"d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 4, "num_heads": 4},
}


class Seconds(NamedTuple):
    """What a text takes: by the clock, and of all processors together."""

    elapsed: float
    of_processors: float


def main() -> None:
    """Measure, and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(SETTINGS), default="gpt2")
    parser.add_argument("--batch", type=int, default=8, help="prompts at once (default: %(default)s)")
    parser.add_argument("--prompt-length", type=int, default=64, help="tokens of each (default: %(default)s)")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens behind each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measured texts (default: %(default)s)")
    arguments = parser.parse_args()
    quiet_libraries()
    transformers.logging.set_verbosity_error()
    device = choose_device("cpu")
    from megatron.layout import grid as grids

    grid = grids.initialise(LayoutOptions(), device)
    theirs = random_model(arguments.model)
    writers = {
        "triarch": our_writer(arguments.model, theirs, device, grid, arguments.new_tokens, arguments.batch),
        "transformers": their_writer(theirs, arguments.new_tokens),
    }
    shape = (arguments.batch, arguments.prompt_length)
    prompts = np.random.default_rng(0).integers(0, VOCABULARY, shape).tolist()
    seconds = measured(writers, prompts, arguments.rounds)
    print_table(seconds, arguments.batch * arguments.new_tokens, device)
    grids.shut_down()


def random_model(family: str) -> transformers.PreTrainedModel:
    """transformers' model, with weights so large that its tokens differ."""
    torch.manual_seed(1)
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0, "decoder_start_token_id": 0}
    config = transformers.AutoConfig.for_model(
        FAMILIES[family].model_type, vocab_size=VOCABULARY, **ends, **SETTINGS[family]
    )
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    model = kind.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.06)
    return model


def our_writer(
    name: str, theirs: transformers.PreTrainedModel, device: Device, grid: Grid, new_tokens: int, batch: int
) -> Write:
    """Our model with the same weights."""
    family, tensors = FAMILIES[name], theirs.state_dict()
    described = family.describe(theirs.config.to_dict(), tensors)
    architecture = ARCHITECTURES[described.architecture]()
    recipe = ModelRecipe(
        architecture=architecture,
        model=described.model,
        vocabulary_size=VOCABULARY,
        max_positions=POSITIONS,
        seed=1,
        lengths=(POSITIONS, POSITIONS),
    )
    reads_inputs = described.architecture == "encoder_decoder"
    _, attend = choose_backend("auto")
    _, chunks = build_chunks(recipe, LayoutOptions(), grid, device, torch.float32, attend)
    parameters: dict[str, nn.Parameter] = dict(global_names(chunks[0]))
    for pair in expand(family.rules(described), described):
        parameters[pair.ours].data.copy_(pair.to_ours(tensors))
    rules = RowRules(seq_length=POSITIONS, decoder_seq_length=POSITIONS, end_token=NO_TOKEN)
    rows = PromptRows(architecture=architecture, rules=rules, reads_running_text=not reads_inputs, ends_inputs=False)
    options = GenerationOptions(max_new_tokens=new_tokens, temperature=0.0, micro_batch_size=batch)
    return lambda prompts: generate(chunks, grid, device, prompts, options, rows, vocabulary_size=VOCABULARY)


def their_writer(model: transformers.PreTrainedModel, new_tokens: int) -> Write:
    """transformers' generate."""

    def write(prompts: list[list[int]]) -> list[list[int]]:
        tokens = torch.tensor(prompts)
        whole = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new_tokens, do_sample=False, use_cache=True
        )
        written: list[list[int]] = whole[:, -new_tokens:].tolist()
        return written

    return write


def measured(writers: Mapping[str, Write], prompts: list[list[int]], rounds: int) -> dict[str, list[Seconds]]:
    """What each text took. Raises RunFault when the texts differ."""
    first = {name: write(prompts) for name, write in writers.items()}
    if len({str(texts) for texts in first.values()}) > 1:
        raise RunFault("the models write different tokens.")
    seconds: dict[str, list[Seconds]] = {name: [] for name in writers}
    for _ in range(rounds):
        for name, write in writers.items():
            start = Seconds(time.perf_counter(), time.process_time())
            write(prompts)
            seconds[name].append(
                Seconds(time.perf_counter() - start.elapsed, time.process_time() - start.of_processors)
            )
    return seconds


def print_table(seconds: Mapping[str, list[Seconds]], tokens: int, device: Device) -> None:
    """Tokens a second at the median, and how many times as fast ours is, by the clock and by processor time."""
    print(
        f"{device.name}, float32, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(" " * 14 + "".join(f"{title:>12}" for title in ("tokens/s", "best", "CPU ms", "ours is", "by CPU")))
    medians = {
        name: Seconds(
            statistics.median(part.elapsed for part in parts), statistics.median(part.of_processors for part in parts)
        )
        for name, parts in seconds.items()
    }
    ours = medians["triarch"]
    for name, median in medians.items():
        best = min(part.elapsed for part in seconds[name])
        row = f"{name:14}{tokens / median.elapsed:12.0f}{tokens / best:12.0f}{median.of_processors * 1e3:12.0f}"
        if name != "triarch":
            row += f"{median.elapsed / ours.elapsed:11.2f}x{median.of_processors / ours.of_processors:11.2f}x"
        print(row)


if __name__ == "__main__":
    main()
