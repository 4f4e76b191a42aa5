"""T0-Eval on CPU: examples a second of ours against a full forward pass for each choice, with the same weights.

    python -m benchmarks.t0_eval               a GPT-2 of 8.7 million parameters, vocabulary 8192
    python -m benchmarks.t0_eval --model t5    a T5 of 9.4 million
    python -m benchmarks.t0_eval --large       GPT-2's smallest, 124 million parameters, vocabulary 50257

Questions have as many choices as those of T0's held-out tasks, and inputs and choices about as many tokens as with
promptsource's templates (KINDS); which tokens these are is drawn. The peer is lm-eval's class `hf`, which sorts by
length and pads batches, with several batch sizes, of which the fastest counts; another row is our scorer with a context
for each choice. All take turns in one process with the same threads. Before anything is timed the scores and accuracies
of all are compared.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import transformers

from benchmarks.evaluation_speed import (
    LARGE,
    PEER_BATCH_SIZES,
    SMALL,
    TOY,
    hugging_face_scorer,
    largest_difference,
    our_scorer,
    print_table,
    random_model,
    take_turns,
)
from megatron.cli.start_up import quiet_libraries
from megatron.device.device import choose_device
from megatron.evaluation.rank_classification import ChoiceQuestion, Ids, Pair, rank
from megatron.evaluation.scored_rows import ScoreRequest
from megatron.layout.options import LayoutOptions

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
END = 0


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
    asked = questions(arguments.examples, theirs.config.vocab_size)
    requests = requests_of(asked)
    scorer = partial(our_scorer, arguments.model, theirs, requests, device, grid, arguments.micro_batch_size)
    contestants = {"T0-Eval": scorer(), "ours, nothing shared": scorer(shares_contexts=False)}
    for batch_size in PEER_BATCH_SIZES:
        contestants[f"lm-eval hf, batch {batch_size}"] = hugging_face_scorer(theirs, requests, batch_size)
    print(
        f"{device.name}, float32, {theirs.num_parameters():,} parameters, {len(asked)} examples with {len(requests)} "
        f"choices, torch {torch.__version__}, transformers {transformers.__version__}"
    )
    results = [run() for run in contestants.values()]
    difference = largest_difference(results)
    accuracy = same_accuracies(asked, [[value for value, _ in result] for result in results])
    seconds, cpu_seconds = take_turns(contestants, requests, device, arguments.rounds)
    print(
        f"log-likelihoods differ by {difference:.1e} at most, accuracy {accuracy[0]:.4f}, per token {accuracy[1]:.4f}; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print_table(seconds, cpu_seconds, len(asked), unit="examples")
    grids.shut_down()


def questions(count: int, vocabulary_size: int) -> list[ChoiceQuestion]:
    """Questions of all kinds in turn; the first choice of each is right."""
    rng = np.random.default_rng(0)

    def tokens(length: int) -> Ids:
        return rng.integers(1, vocabulary_size, length, dtype=np.int32)

    found = []
    for number in range(count):
        choices, fewest, most, median, _ = KINDS[number % len(KINDS)]
        length = int(np.clip(rng.lognormal(np.log(median), SPREAD), SHORTEST, LONGEST))
        answers = [np.append(tokens(int(rng.integers(fewest, most + 1))), np.int32(END)) for _ in range(choices)]
        found.append(ChoiceQuestion(tokens(length), tuple(answers), (0,)))
    return found


def requests_of(asked: Sequence[ChoiceQuestion]) -> list[ScoreRequest]:
    """One for each choice, as T0-Eval makes them."""
    return [
        ScoreRequest(tuple(question.inputs.tolist()), tuple(choice.tolist()))
        for question in asked
        for choice in question.choices
    ]


def same_accuracies(asked: Sequence[ChoiceQuestion], results: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Accuracy, and that by means over tokens. Raises RuntimeError where contestants have different ones."""
    found = set()
    for values in results:
        rankings = rank(asked, partial(_known, values))
        right = [(ranking.is_right, ranking.is_right_per_token) for ranking in rankings]
        found.add(tuple(float(np.mean(one)) for one in zip(*right, strict=True)))
    if len(found) > 1:
        raise RuntimeError(f"accuracies are {sorted(found)}: this would compare different work")
    (accuracy,) = found
    return accuracy[0], accuracy[1]


def _known(values: Sequence[float], _: Sequence[Pair]) -> Sequence[float]:
    return values


if __name__ == "__main__":
    main()
