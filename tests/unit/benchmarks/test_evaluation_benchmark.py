"""The benchmark of log-likelihoods compares equal work."""

from __future__ import annotations

import pytest

from benchmarks.evaluation_speed import (
    ANSWERS,
    TOY,
    hugging_face_scorer,
    largest_difference,
    our_scorer,
    questions,
    random_model,
    take_turns,
)
from tests.oracles.one_process_model import DEVICE, one_process_grid


@pytest.mark.parametrize("one_token", [False, True])
@pytest.mark.parametrize("family", sorted(TOY))
def test_both_score_the_same_requests(family: str, one_token: bool) -> None:
    theirs = random_model(family, TOY)
    requests = questions(3 * ANSWERS, TOY[family]["vocab_size"], ANSWERS, one_token=one_token)
    assert len(requests) == 3 * ANSWERS and len({request.context for request in requests}) == 3
    contestants = {
        "ours": our_scorer(family, theirs, requests, DEVICE, one_process_grid(), 2),
        "peer": hugging_face_scorer(theirs, requests, 4),
    }
    results = [run() for run in contestants.values()]
    assert largest_difference(results) < 1e-4
    assert all(ours[1] == peer[1] for ours, peer in zip(*results, strict=True))
    seconds, _ = take_turns(contestants, requests, DEVICE, rounds=2)
    assert {name: len(times) for name, times in seconds.items()} == {"ours": 2, "peer": 2}


def test_unequal_work_is_no_comparison() -> None:
    with pytest.raises(RuntimeError, match="would compare different work"):
        largest_difference([[(-1.0, True)], [(-1.1, True)]])
