"""T0-Eval on CPU: examples a second of ours against a full forward pass for each choice, with the same weights.

    python -m benchmarks.t0_eval               a GPT-2 of 8.7 million parameters, vocabulary 8192
    python -m benchmarks.t0_eval --model t5    a T5 of 9.4 million
    python -m benchmarks.t0_eval --large       GPT-2's smallest, 124 million parameters, vocabulary 50257

What is timed is what `tools/evaluate.py --t0-eval` does behind templates, from texts to the scores of tasks. Questions
have as many choices as those of T0's held-out tasks, and inputs and choices about as many tokens as with promptsource's
templates (KINDS); which words these are is drawn. The peer is lm-eval's class `hf`, as --hf uses it: it sorts by length
and pads batches, with several batch sizes, of which the fastest counts; another row is our scorer with a context for
each choice. All take turns in one process with the same threads. Before anything is timed the scores and accuracies of
all are compared.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers

from benchmarks.evaluation_speed import (
    LARGE,
    PEER_BATCH_SIZES,
    POSITIONS,
    SMALL,
    TOY,
    largest_difference,
    our_chunks,
    print_table,
    random_model,
)
from benchmarks.train_step import with_cpu_time
from benchmarks.training_steps import interleave
from megatron.cli.start_up import quiet_libraries
from megatron.device.device import Device, choose_device
from megatron.evaluation.answering_model import AnsweringModel, TrainedModel
from megatron.evaluation.encoded_prompts import encode_tasks
from megatron.evaluation.lm_eval_answers import ExportedModel
from megatron.evaluation.prompted_tasks import PromptedExamples, PromptedTask
from megatron.evaluation.rank_classification import ACCURACY, ACCURACY_PER_TOKEN
from megatron.evaluation.score import score
from megatron.evaluation.t0_eval import score_tasks
from megatron.layout.grid import Grid
from megatron.layout.options import LayoutOptions
from megatron.prompting.mixture import HeldOutTask
from megatron.prompting.template import Prompted, Template
from megatron.tokenization.hugging_face_tokenizer import HuggingFaceTokenizer

# Choices, fewest and most tokens of one without its end token, median tokens of inputs, and the data sets of T0-Eval.
# They were counted with GPT-NeoX's vocabulary in RTE, CB, Winogrande, COPA, HellaSwag; the others are taken for alike.
KINDS = (
    (2, 1, 1, 66, "RTE, WiC, WSC"),
    (3, 1, 3, 98, "ANLI, CB"),
    (2, 1, 3, 41, "Winogrande"),
    (2, 3, 12, 38, "COPA, StoryCloze"),
    (4, 3, 40, 122, "HellaSwag"),
)
SPREAD, SHORTEST, LONGEST = 0.5, 8, 900  # of the lengths of inputs: log-normal
END = "end"  # token 0; token n is the word "wn"

Accuracies = tuple[tuple[float, float], ...]  # of each task, by sums and per token


def main() -> None:
    """Compare scores and accuracies, take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(SMALL), default="gpt2")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--large", action="store_true", help="GPT-2's or T5's size instead of some 8 million weights")
    size.add_argument("--toy", action="store_true", help="a tiny model, to try the program")
    parser.add_argument("--examples", type=int, default=60, help="questions (default: %(default)s)")
    parser.add_argument("--micro-batch-size", type=int, default=2, help="rows of ours (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measured turns of each (default: %(default)s)")
    arguments = parser.parse_args()
    quiet_libraries()
    transformers.logging.set_verbosity_error()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    device = choose_device("cpu")
    from megatron.layout import grid as grids

    grid = grids.initialise(LayoutOptions(), device)
    theirs = random_model(arguments.model, LARGE if arguments.large else TOY if arguments.toy else SMALL)
    tasks = tasks_of(arguments.examples, theirs.config.vocab_size)
    models = contestants(arguments.model, theirs, device, grid, arguments.micro_batch_size)
    asked = [question for task in tasks for prompt in task.prompts for _, question in prompt.questions]
    print(
        f"{device.name}, float32, {theirs.num_parameters():,} parameters, {len(asked)} examples with "
        f"{sum(len(question.choices or ()) for question in asked)} choices, torch {torch.__version__}, transformers "
        f"{transformers.__version__}"
    )
    difference = largest_difference([log_likelihoods(tasks, model) for model in models.values()])
    found = same_accuracies({name: accuracies(tasks, model) for name, model in models.items()})
    cpu_seconds: dict[str, list[float]] = {name: [] for name in models}
    turns = {
        name: with_cpu_time(partial(_tasks_scored, tasks, model), cpu_seconds[name]) for name, model in models.items()
    }
    seconds = interleave(turns, device, rounds=arguments.rounds, warm_up=0)
    means = [float(np.mean(values)) for values in zip(*found, strict=True)]
    print(
        f"log-likelihoods differ by {difference:.1e} at most, accuracy {means[0]:.4f}, per token {means[1]:.4f}; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print_table(seconds, cpu_seconds, len(asked), unit="examples")
    grids.shut_down()


def tasks_of(count: int, vocabulary_size: int) -> list[PromptedTask]:
    """A task of each kind with its share of `count` questions; the first choice of each is right."""
    rng = np.random.default_rng(0)

    def text(length: int) -> str:
        return " ".join(f"w{token}" for token in rng.integers(1, vocabulary_size, length))

    tasks = []
    for number, (choices, fewest, most, median, name) in enumerate(KINDS):
        prompt = PromptedExamples(
            Template(name, "drawn", "", "", True, False, (), "drawn", ""), (ACCURACY, ACCURACY_PER_TOKEN)
        )
        for index in range(len(range(number, count, len(KINDS)))):
            length = int(np.clip(rng.lognormal(np.log(median), SPREAD), SHORTEST, LONGEST))
            answers: dict[str, None] = {}
            while len(answers) < choices:  # choices of a question differ
                answers[text(int(rng.integers(fewest, most + 1)))] = None
            prompt.questions.append((index, Prompted(text(length), (next(iter(answers)),), tuple(answers))))
        if prompt.questions:
            task = HeldOutTask(name, name, None, "validation", 1, Fraction(1, choices))
            tasks.append(PromptedTask(task, "drawn", (prompt,)))
    return tasks


def contestants(
    name: str, theirs: transformers.PreTrainedModel, device: Device, grid: Grid, micro_batch_size: int
) -> dict[str, AnsweringModel]:
    """Ours, ours with a context for each choice, and lm-eval's class with every batch size; one tokenizer for all."""
    from lm_eval.models.huggingface import HFLM

    names = [END, *(f"w{number}" for number in range(1, theirs.config.vocab_size))]
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(names)}, unk_token=END)
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token=END, pad_token=END)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "config.json").write_text(f'{{"model_type": "{name}"}}')
        own = HuggingFaceTokenizer(folder)
    chunks, rows = our_chunks(name, theirs, device, grid)
    scored = partial(
        score,
        chunks,
        grid,
        device,
        prompt_rows=rows,
        vocabulary_size=theirs.config.vocab_size,
        micro_batch_size=micro_batch_size,
    )
    models: dict[str, AnsweringModel] = {
        "T0-Eval": TrainedModel(scored, lambda *_: [], own, rows, micro_batch_size),
        "ours, nothing shared": TrainedModel(
            partial(scored, shares_contexts=False), lambda *_: [], own, rows, micro_batch_size
        ),
    }
    for batch_size in PEER_BATCH_SIZES:
        peer = HFLM(pretrained=theirs, tokenizer=tokenizer, batch_size=batch_size, max_length=POSITIONS)
        models[f"lm-eval hf, batch {batch_size}"] = ExportedModel(peer)
    return models


def log_likelihoods(tasks: Sequence[PromptedTask], model: AnsweringModel) -> list[tuple[float, bool]]:
    """Of each choice of each question, in the form in which scores are compared."""
    pairs = [
        (tuple(question.inputs.tolist()), tuple(choice.tolist()))
        for task in encode_tasks(tasks, model)
        for prompt in task.prompts
        for question in prompt.choices
        for choice in question.choices
    ]
    return [(value, True) for value in model.log_likelihoods(pairs)]


def accuracies(tasks: Sequence[PromptedTask], model: AnsweringModel) -> Accuracies:
    """What T0-Eval says of each task: all that it does between templates and reports."""
    scores = score_tasks(encode_tasks(tasks, model), model)
    return tuple((one.spreads[ACCURACY].median, one.spreads[ACCURACY_PER_TOKEN].median) for one in scores)


def same_accuracies(found: Mapping[str, Accuracies]) -> Accuracies:
    """What all have. Raises RuntimeError where contestants have different accuracies."""
    if len({*found.values()}) > 1:
        raise RuntimeError(f"accuracies are {found}: this would compare different work")
    return next(iter(found.values()))


def _tasks_scored(tasks: Sequence[PromptedTask], model: AnsweringModel) -> float:
    return float(len(accuracies(tasks, model)))


if __name__ == "__main__":
    main()
