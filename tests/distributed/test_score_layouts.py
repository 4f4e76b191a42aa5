"""Log-likelihoods are those of one process on any layout, and the same on every rank."""

import json
from pathlib import Path

import pytest
from launch import first_traceback, torchrun
from score_worker import scores

from megatron.architectures.registry import ARCHITECTURES
from megatron.layout.options import LayoutOptions
from tests.oracles.one_process_model import one_process_grid

LAYOUTS = {
    "TP4 PP1 DP1": {"tensor_model_parallel_size": 4},
    "TP2 PP2 DP1": {"tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2},
    "TP1 PP2 DP2": {"pipeline_model_parallel_size": 2},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    result = tmp_path_factory.mktemp("score") / "scores.json"
    worker = Path(__file__).with_name("score_worker.py")
    done = torchrun(worker, str(result), *map(json.dumps, LAYOUTS.values()), ranks=4)
    assert done.returncode == 0, first_traceback(done.stderr)
    return json.loads(result.read_text())


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def alone(request):
    return request.param, scores(request.param, one_process_grid(), LayoutOptions())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_are_those_of_one_process(results, alone, layout):
    architecture, wanted = alone
    ranks = results[f"{layout} {architecture}"]
    assert all(rank == ranks[0] for rank in ranks)
    for (likelihood, is_greedy), (wanted_likelihood, wanted_greedy) in zip(ranks[0], wanted, strict=True):
        assert likelihood == pytest.approx(wanted_likelihood, rel=2e-6, abs=2e-5)
        assert is_greedy == wanted_greedy
