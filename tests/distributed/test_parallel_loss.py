"""The loss over a vocabulary on 4 ranks is that of one process, also where ranks hold nothing but padding."""

from pathlib import Path

import pytest
import torch
from launch import first_traceback, torchrun
from loss_worker import losses_of

from tests.oracles.one_process_model import one_process_grid

VOCABULARIES = [64, 50, 33, 17, 1]  # of 64 columns, 16 a rank: full, partly padding, ranks without a single real one


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loss")
    generator = torch.Generator().manual_seed(1)
    job = {
        "logits": 4 * torch.randn(9, 3, 64, generator=generator),
        "labels": torch.randint(0, 64, (3, 9), generator=generator),
        "loss_mask": torch.randint(0, 2, (3, 9), generator=generator).float(),
        "vocabulary_sizes": VOCABULARIES,
    }
    torch.save(job, folder / "job.pt")
    worker = Path(__file__).with_name("loss_worker.py")
    done = torchrun(worker, str(folder / "job.pt"), str(folder / "four.pt"), ranks=4)
    assert done.returncode == 0, first_traceback(done.stderr)
    return {"job": job, 1: losses_of(job, one_process_grid()), 4: torch.load(folder / "four.pt")}


@pytest.mark.parametrize("vocabulary_size", VOCABULARIES)
def test_four_ranks_are_one(results, vocabulary_size):
    one, four = results[1][vocabulary_size], results[4][vocabulary_size]
    assert int(one["count"]) == int(four["count"]) > 0
    assert len(set(four["totals"].tolist())) == 1
    assert four["totals"][0].item() == pytest.approx(one["totals"][0].item(), rel=1e-6)
    assert torch.allclose(four["gradient"], one["gradient"], rtol=1e-5, atol=1e-7)
    assert not four["gradient"][..., vocabulary_size:].any()
    assert vocabulary_size == 1 or four["gradient"].any()


@pytest.mark.parametrize("vocabulary_size", VOCABULARIES)
def test_log_probabilities_of_given_tokens(results, vocabulary_size):
    """On one rank and on four they are torch's; of equal logits the first is the likeliest, whichever rank holds it."""
    logits = results["job"]["logits"].flatten(0, 1).round()[:, :vocabulary_size]
    wanted = logits.double().log_softmax(-1)
    likeliest = torch.nn.functional.one_hot(logits.argmax(-1), vocabulary_size).bool()
    ties = (logits == logits.amax(-1, keepdim=True)).sum(-1) > 1
    assert vocabulary_size == 1 or ties.any()
    for ranks in (1, 4):
        log_probability, is_likeliest = results[ranks][vocabulary_size]["answers"]
        assert torch.allclose(log_probability.double(), wanted.flatten(), rtol=1e-6, atol=2e-6)
        assert torch.equal(is_likeliest, likeliest.flatten())
