"""The benchmark of T0-Eval compares equal work."""

import pytest

from benchmarks.evaluation_speed import TOY, hugging_face_scorer, our_scorer, random_model
from benchmarks.t0_eval import KINDS, questions, requests_of, same_accuracies
from tests.oracles.one_process_model import DEVICE, one_process_grid


def test_both_have_the_same_accuracy():
    theirs = random_model("gpt2", TOY)
    asked = questions(len(KINDS), TOY["gpt2"]["vocab_size"])
    requests = requests_of(asked)
    assert len(requests) == sum(choices for choices, *_ in KINDS)
    results = [
        [value for value, _ in run()]
        for run in (
            our_scorer("gpt2", theirs, requests, DEVICE, one_process_grid(), 2),
            hugging_face_scorer(theirs, requests, 4),
        )
    ]
    accuracy, _ = same_accuracies(asked, results)
    assert 0 <= accuracy <= 1
    wrong = [-value for value in results[0]]
    with pytest.raises(RuntimeError, match="would compare different work"):
        same_accuracies(asked, [results[0], wrong])
