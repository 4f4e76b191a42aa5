"""Log-likelihoods of answers on CPU: ours against lm-eval's `hf` class, with the same weights.

    python -m benchmarks.evaluation_speed               a GPT-2 of 8.7 million parameters, vocabulary 8192
    python -m benchmarks.evaluation_speed --model t5    a T5 of 9.4 million
    python -m benchmarks.evaluation_speed --large       GPT-2's smallest, 124 million parameters, vocabulary 50257
    python -m benchmarks.evaluation_speed --one-token   answers of one token, as A, B, C and D

A request is a context and an answer, 20 to 200 tokens together. First four requests share each context, as those of a
question do, then each has its own. Both get token ids, so that no tokenizer is measured, and take turns in one process
with the same threads. The peer runs with several batch sizes; the fastest counts. Before anything is timed the scores
of both are compared.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
import transformers
from torch import nn

from benchmarks.train_step import with_cpu_time
from benchmarks.training_steps import interleave, median_ratio
from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.attention.registry import choose_backend
from megatron.cli.start_up import quiet_libraries
from megatron.conversion.registry import FAMILIES
from megatron.conversion.rules import expand
from megatron.device.device import Device, choose_device
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.score import score
from megatron.evaluation.scored_rows import ScoreRequest
from megatron.layout.grid import Grid
from megatron.layout.initial_weights import global_names
from megatron.layout.options import LayoutOptions
from megatron.loop.setup import ModelRecipe, build_chunks

SMALL: Mapping[str, Mapping[str, int]] = {
    "gpt2": {"vocab_size": 8192, "n_embd": 256, "n_layer": 8, "n_head": 4},
    "t5": {"vocab_size": 8192, "d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 4, "num_heads": 4},
}
LARGE: Mapping[str, Mapping[str, int]] = {
    "gpt2": {"vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12},
    "t5": {"vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
}
TOY: Mapping[str, Mapping[str, int]] = {
    "gpt2": {"vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 2},
    "t5": {"vocab_size": 128, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
}
POSITIONS, DECODER_POSITIONS = 1024, 256
PEER_BATCH_SIZES = (1, 8, 32)
ANSWERS, SHORTEST, LONGEST, LONGEST_ANSWER = 4, 20, 200, 16
TOLERANCE = 1e-3  # of a log-likelihood, float32 on both sides

Contestant = Callable[[], list[tuple[float, bool]]]


def main() -> None:
    """Compare the scores, take turns, print a table for each number of answers to a context."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(SMALL), default="gpt2")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--large", action="store_true", help="GPT-2's or T5's size instead of some 8 million weights")
    size.add_argument("--toy", action="store_true", help="a tiny model, to try the program")
    parser.add_argument("--one-token", action="store_true", help="answers of one token")
    parser.add_argument("--requests", type=int, default=128, help="contexts with an answer (default: %(default)s)")
    parser.add_argument("--micro-batch-size", type=int, default=2, help="rows of ours (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measured turns of each (default: %(default)s)")
    arguments = parser.parse_args()
    quiet_libraries()
    transformers.logging.set_verbosity_error()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    device = choose_device("cpu")
    from megatron.layout import grid as grids

    grid = grids.initialise(LayoutOptions(), device)
    sizes = LARGE if arguments.large else TOY if arguments.toy else SMALL
    theirs = random_model(arguments.model, sizes)
    print(
        f"{device.name}, float32, {theirs.num_parameters():,} parameters, {arguments.requests} requests, "
        f"torch {torch.__version__}, transformers {transformers.__version__}"
    )
    for answers, title in ((ANSWERS, f"shared context ({ANSWERS} choices)"), (1, "a context for each answer")):
        requests = questions(arguments.requests, theirs.config.vocab_size, answers, one_token=arguments.one_token)
        scorer = partial(our_scorer, arguments.model, theirs, requests, device, grid, arguments.micro_batch_size)
        contestants = {"ours": scorer()}
        if answers > 1:
            contestants["ours, nothing shared"] = scorer(shares_contexts=False)
        for batch_size in PEER_BATCH_SIZES:
            contestants[f"lm-eval hf, batch {batch_size}"] = hugging_face_scorer(theirs, requests, batch_size)
        difference = largest_difference([run() for run in contestants.values()])
        seconds, cpu_seconds = take_turns(contestants, requests, device, arguments.rounds)
        print(f"{title}; log-likelihoods differ by {difference:.1e} at most; load {os.getloadavg()[0]:.1f}")
        print_table(seconds, cpu_seconds, len(requests))
    grids.shut_down()


def random_model(family: str, sizes: Mapping[str, Mapping[str, int]]) -> transformers.PreTrainedModel:
    """transformers' model with random weights, ready to be scored."""
    torch.manual_seed(0)
    more = {"n_positions": POSITIONS} if family == "gpt2" else {"pad_token_id": 0, "decoder_start_token_id": 0}
    config = transformers.AutoConfig.for_model(family, **sizes[family], **more, bos_token_id=0, eos_token_id=0)
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    return kind.from_config(config, dtype=torch.float32).eval()


def questions(count: int, vocabulary_size: int, answers: int, *, one_token: bool) -> list[ScoreRequest]:
    """Requests of SHORTEST to LONGEST tokens, at least half of them context, which so many of them share."""
    rng = np.random.default_rng(0)
    requests = []
    for _ in range(count // answers):
        whole = int(rng.integers(SHORTEST, LONGEST + 1))
        longest = 1 if one_token else min(LONGEST_ANSWER, whole // 2)
        context = tuple(rng.integers(1, vocabulary_size, whole - longest).tolist())
        for _ in range(answers):
            length = int(rng.integers(1, longest + 1))
            requests.append(ScoreRequest(context, tuple(rng.integers(1, vocabulary_size, length).tolist())))
    return requests


def our_scorer(
    name: str,
    theirs: transformers.PreTrainedModel,
    requests: Sequence[ScoreRequest],
    device: Device,
    grid: Grid,
    micro_batch_size: int,
    *,
    shares_contexts: bool = True,
) -> Contestant:
    """Our scorer, on the peer's weights in our model."""
    chunks, rows = our_chunks(name, theirs, device, grid)
    scored = partial(score, chunks, grid, device, requests, rows, vocabulary_size=theirs.config.vocab_size)

    def run() -> list[tuple[float, bool]]:
        scores = scored(micro_batch_size=micro_batch_size, shares_contexts=shares_contexts)
        return [(one.log_likelihood, one.is_greedy) for one in scores]

    return run


def our_chunks(
    name: str, theirs: transformers.PreTrainedModel, device: Device, grid: Grid
) -> tuple[list[nn.Module], PromptRows]:
    """The peer's weights in our model, and how it reads contexts."""
    family, tensors = FAMILIES[name], theirs.state_dict()
    described = family.describe(theirs.config.to_dict(), tensors)
    architecture = ARCHITECTURES[described.architecture]()
    lengths = (POSITIONS, DECODER_POSITIONS)
    recipe = ModelRecipe(
        architecture=architecture,
        model=described.model,
        vocabulary_size=described.vocabulary_size,
        max_positions=POSITIONS,
        seed=1,
        lengths=lengths,
    )
    _, attend = choose_backend("auto")
    _, chunks = build_chunks(recipe, LayoutOptions(), grid, device, torch.float32, attend)
    parameters = dict(global_names(chunks[0]))
    for pair in expand(family.rules(described), described):
        parameters[pair.ours].data.copy_(pair.to_ours(tensors))
    rows = PromptRows(
        architecture=architecture,
        rules=RowRules(seq_length=lengths[0], decoder_seq_length=lengths[1], end_token=0),
        reads_running_text=not theirs.config.is_encoder_decoder,
        ends_inputs=False,
    )
    return chunks, rows


def hugging_face_scorer(
    theirs: transformers.PreTrainedModel, requests: Sequence[ScoreRequest], batch_size: int
) -> Contestant:
    """lm-eval's own class around the peer; its tokenizer is never asked."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = Tokenizer(WordLevel({"end": 0}, unk_token="end"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="end", pad_token="end")
    peer = HFLM(pretrained=theirs, tokenizer=tokenizer, batch_size=batch_size, max_length=POSITIONS)
    # lm-eval knows requests by their texts, which are all different.
    encoded = [
        ((str(number), ""), list(request.context), list(request.continuation))
        for number, request in enumerate(requests)
    ]
    return lambda: peer._loglikelihood_tokens(encoded, disable_tqdm=True)


def largest_difference(results: Sequence[Sequence[tuple[float, bool]]]) -> float:
    """Between the log-likelihoods of the first and any other. Raises RuntimeError where that is no rounding."""
    first = results[0]
    difference = max(abs(a - b) for other in results[1:] for (a, _), (b, _) in zip(first, other, strict=True))
    if difference > TOLERANCE:
        raise RuntimeError(f"log-likelihoods differ by {difference}: this would compare different work")
    return difference


def take_turns(
    contestants: dict[str, Contestant], requests: Sequence[ScoreRequest], device: Device, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds and CPU seconds of each turn by name; the comparison of scores was the warm-up."""
    num_tokens = sum(len(request.continuation) for request in requests)
    cpu_seconds: dict[str, list[float]] = {name: [] for name in contestants}

    def loss_of(run: Contestant) -> float:
        return -sum(log_likelihood for log_likelihood, _ in run()) / num_tokens

    timed = {name: with_cpu_time(partial(loss_of, run), cpu_seconds[name]) for name, run in contestants.items()}
    return interleave(timed, device, rounds=rounds, warm_up=0), cpu_seconds


def print_table(
    seconds: dict[str, list[float]], cpu_seconds: dict[str, list[float]], count: int, unit: str = "requests"
) -> None:
    """Medians over `count` units of work, and how many times as fast the first row is."""
    ours = next(iter(seconds))
    print(" " * 24 + "".join(f"{title:>12}" for title in (f"{unit}/s", "best", "CPU ms each", "ours is", "by CPU")))
    for name, times in seconds.items():
        row = f"{name:24}{count / statistics.median(times):12.1f}{count / min(times):12.1f}"
        row += f"{statistics.median(cpu_seconds[name]) / count * 1e3:12.2f}"
        if name != ours:
            row += f"{median_ratio(seconds[ours], times):11.2f}x"
            row += f"{median_ratio(cpu_seconds[ours], cpu_seconds[name]):11.2f}x"
        print(row)


if __name__ == "__main__":
    main()
