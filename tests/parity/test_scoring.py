"""Log-likelihoods against transformers and against models written out, and what they do not depend on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from families import LENGTH, copy_weights, make_theirs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from test_transformers_t5 import VERSIONS, make_both

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.basics.errors import RunFault
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.score import score
from megatron.evaluation.scored_rows import ScoreRequest
from tests.oracles.gpt2_by_hand import gpt2_logits
from tests.oracles.one_process_model import DEVICE, VOCABULARY, build_decoder, one_process_grid, recipe_of

GPT2 = {"num_layers": 3, "hidden_size": 48, "num_attention_heads": 4, "activation": "gelu_tanh"}
END, START = 1, 0
DECODER_LENGTH = 40


def random_requests(count, seed=0, longest=60):
    rng = np.random.default_rng(seed)
    lengths = zip(rng.integers(1, longest, count), rng.integers(1, 12, count), strict=True)
    return [ScoreRequest(*(tuple(rng.integers(2, VOCABULARY, length).tolist()) for length in pair)) for pair in lengths]


def with_more_answers(requests):
    """Each request, and two more answers to the same context, one of a single token."""
    for number, request in enumerate(requests):
        yield from (request, ScoreRequest(request.context, (2 + number, 9, 8)), ScoreRequest(request.context, (7,)))


def prompt_rows(architecture, *, reads_running_text=False, ends_inputs=False, **rules):
    lengths = {"seq_length": LENGTH, "decoder_seq_length": DECODER_LENGTH}
    return PromptRows(
        architecture=ARCHITECTURES[architecture](),
        rules=RowRules(**{**lengths, "end_token": END, "start_token": START, **rules}),
        reads_running_text=reads_running_text,
        ends_inputs=ends_inputs,
    )


def scores(ours, requests, rows, **how):
    return score([ours], one_process_grid(), DEVICE, requests, rows, vocabulary_size=VOCABULARY, **how)


def expected(logits, tokens):
    """(log-likelihood, whether greedy) of tokens from the logits [t, vocabulary] that predict them."""
    logits, tokens = logits.double(), torch.tensor(tokens)
    likelihood = logits.log_softmax(-1).gather(1, tokens[:, None]).sum()
    return float(likelihood), bool((logits.argmax(-1) == tokens).all())


def assert_scores(got, wanted, tolerance=1e-5):
    for one, (likelihood, is_greedy) in zip(got, wanted, strict=True):
        assert one.log_likelihood == pytest.approx(likelihood, abs=tolerance)
        assert one.is_greedy == is_greedy


@pytest.fixture(scope="module")
def gpt2():
    theirs = make_theirs("gpt2", torch.float64)
    for parameter in theirs.transformer.h.parameters():
        parameter.data *= 3 if parameter.dim() > 1 else 1  # else contexts say little
    _, ours = build_decoder(recipe_of(GPT2, max_positions=LENGTH), backend="fused_softmax", dtype=torch.float64)
    copy_weights("gpt2", theirs, ours)
    return ours, theirs


def greedy_requests(theirs, requests):
    """Each request again with what the model itself writes behind its context."""
    for request in requests:
        tokens = torch.tensor([request.context])
        written = theirs.generate(tokens, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
        yield ScoreRequest(request.context, tuple(written[0, len(request.context) :].tolist()))


def test_a_causal_decoder_scores_as_transformers(gpt2):
    ours, theirs = gpt2
    requests = [*with_more_answers(random_requests(12))]
    requests += greedy_requests(theirs, requests[:5])
    wanted = []
    for request in requests:
        tokens = torch.tensor([[*request.context, *request.continuation]])
        with torch.no_grad():
            logits = theirs(tokens).logits[0, len(request.context) - 1 : -1]
        wanted.append(expected(logits, request.continuation))
    for reads_running_text in (True, False):
        rows = prompt_rows("causal_decoder", reads_running_text=reads_running_text)
        assert_scores(scores(ours, requests, rows), wanted)
    assert sum(is_greedy for _, is_greedy in wanted) >= 5


@pytest.mark.parametrize("ends_inputs", [False, True])
def test_a_prefix_decoder_scores_as_its_dense_mask_says(gpt2, ends_inputs):
    ours, theirs = gpt2
    requests = [*with_more_answers(random_requests(8))]
    wanted = []
    for request in requests:
        inputs = [*request.context, *[END] * ends_inputs]
        tokens = torch.tensor([*inputs, *request.continuation])
        mask = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
        mask[: len(inputs), : len(inputs)] = True
        logits = gpt2_logits(theirs, tokens, mask)[len(inputs) - 1 : -1]
        wanted.append(expected(logits, request.continuation))
    rows = prompt_rows("prefix_decoder", ends_inputs=ends_inputs)
    assert_scores(scores(ours, requests, rows), wanted)
    one_way = scores(ours, requests, prompt_rows("causal_decoder", ends_inputs=ends_inputs))
    assert max(abs(a.log_likelihood - b) for a, (b, _) in zip(one_way, wanted, strict=True)) > 0.01


@pytest.mark.parametrize("version", VERSIONS)
def test_an_encoder_decoder_scores_as_transformers(version):
    ours, theirs = make_both(version)
    requests = [*with_more_answers(random_requests(8))]
    wanted = []
    for request in requests:
        with torch.no_grad():
            logits = theirs(
                input_ids=torch.tensor([[*request.context, END]]),
                decoder_input_ids=torch.tensor([[START, *request.continuation[:-1]]]),
            ).logits[0]
        wanted.append(expected(logits, request.continuation))
    assert_scores(scores(ours, requests, prompt_rows("encoder_decoder", ends_inputs=True)), wanted)


READINGS = [
    ("causal_decoder", {"reads_running_text": True}),
    ("causal_decoder", {"begins_with_start_token": True}),
    ("prefix_decoder", {}),
    ("prefix_decoder", {"begins_with_start_token": True, "ends_inputs": True}),
    ("encoder_decoder", {"ends_inputs": True}),
    ("encoder_decoder", {}),
]


@pytest.fixture(scope="module")
def small():
    """A model of every architecture whose words depend much on their context."""
    shape = {**GPT2, "num_layers": 2, "position_embedding_type": "relative", "init_method_std": 0.3}
    made = {}
    for architecture in ARCHITECTURES:
        recipe = recipe_of(shape, max_positions=LENGTH, architecture=architecture, lengths=(LENGTH, DECODER_LENGTH))
        _, made[architecture] = build_decoder(recipe, backend="fused_softmax")
    return made


tokens = st.lists(st.integers(2, VOCABULARY - 1), min_size=1, max_size=30).map(tuple)


@pytest.mark.parametrize(("architecture", "reading"), READINGS, ids=str)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contexts=st.lists(st.just(()) | tokens, min_size=1, max_size=4),
    answers=st.lists(st.tuples(st.integers(0, 3), tokens), min_size=1, max_size=12),
    row_length=st.integers(1, 200),
    micro_batch_size=st.integers(1, 5),
    order=st.randoms(use_true_random=False),
)
def test_packing_changes_no_score(small, architecture, reading, contexts, answers, row_length, micro_batch_size, order):
    """Whoever shares its context, its row or its batch, in whatever order, a request scores as it does alone."""
    ours, rows = small[architecture], prompt_rows(architecture, **reading)
    requests = [ScoreRequest(contexts[number % len(contexts)], answer) for number, answer in answers]
    alone = [scores(ours, [request], rows)[0] for request in requests]
    mixed = list(range(len(requests)))
    order.shuffle(mixed)
    together = scores(
        ours, [requests[n] for n in mixed], rows, row_length=row_length, micro_batch_size=micro_batch_size
    )
    for number, got in zip(mixed, together, strict=True):
        assert got.log_likelihood == pytest.approx(alone[number].log_likelihood, abs=2e-4, rel=1e-5)


def test_answers_that_differ_in_their_last_token_share_a_row(gpt2):
    """As lm-eval's hf class does; here the count of positions shows it."""
    ours, _ = gpt2
    seen = []
    hook = ours.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    rows = prompt_rows("causal_decoder")
    requests = [ScoreRequest((5, 6, 7), (8, last)) for last in (9, 10, 11, 9)]
    got = scores(ours, requests, rows)
    hook.remove()
    assert [tuple(batch.tokens.shape) for batch in seen] == [(1, 8)] and seen[0].head_positions.shape == (2, 2)
    assert seen[0].tokens[0].tolist() == [5, 6, 7, 8, 0, 0, 0, 0]
    assert got[0] == got[3] and got[:1] == scores(ours, requests[:1], rows)
    assert len({one.log_likelihood for one in got}) == 3


def test_few_rows_are_spread_over_replicas(gpt2):
    """Four rows in micro-batches of eight: of two replicas each has two rows, here the first."""
    ours, _ = gpt2
    seen = []
    hook = ours.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0].tokens)))
    half = replace(one_process_grid(), data_size=2)
    requests = [ScoreRequest(tuple(range(number, number + 30)), (5, 6, 7)) for number in range(2, 6)]
    found = score([ours], half, DEVICE, requests, prompt_rows("causal_decoder", seq_length=32), vocabulary_size=100)
    hook.remove()
    assert seen == [2] and sum(one.log_likelihood != 0 for one in found) == 2


def test_a_context_that_is_too_long_loses_its_beginning(gpt2):
    ours, _ = gpt2
    rows = prompt_rows("causal_decoder", seq_length=16)
    long, short = tuple(range(2, 32)), tuple(range(32 - 13, 32))
    same = scores(ours, [ScoreRequest(long, (40, 41, 42, 43)), ScoreRequest(short, (40, 41, 42, 43))], rows)
    assert same[0] == same[1]  # 13 and 4 tokens, of which the last is no position
    assert same[0] != scores(ours, [ScoreRequest(short[1:], (40, 41, 42, 43))], rows)[0]


@pytest.mark.parametrize("length", [1, 7, 16, 17, 50])
def test_a_whole_text_is_scored_in_the_windows_of_lm_eval(gpt2, length):
    ours, theirs = gpt2
    text = np.random.default_rng(length).integers(2, VOCABULARY, length).tolist()
    (got,) = scores(ours, [ScoreRequest((), tuple(text))], prompt_rows("causal_decoder", seq_length=16))
    total = 0.0
    for context, window in map(make_disjoint_window, get_rolling_token_windows(text, END, 16, 1)):
        with torch.no_grad():
            logits = theirs(torch.tensor([[*context, *window][:-1]])).logits[0, -len(window) :]
        total += expected(logits, window)[0]
    assert got.log_likelihood == pytest.approx(total, abs=1e-4)


def test_an_encoder_decoder_reads_what_it_has_scored(small):
    """The pieces of a continuation that is longer than the decoder's row are those of the chain rule."""
    ours, rows = small["encoder_decoder"], prompt_rows("encoder_decoder")
    text = tuple(np.random.default_rng(0).integers(2, VOCABULARY, DECODER_LENGTH + 9).tolist())
    (whole,) = scores(ours, [ScoreRequest((5, 6), text)], rows)
    first, rest = text[:DECODER_LENGTH], text[DECODER_LENGTH:]
    parts = scores(ours, [ScoreRequest((5, 6), first), ScoreRequest((5, 6, *first), rest)], rows)
    assert whole.log_likelihood == pytest.approx(sum(part.log_likelihood for part in parts), rel=1e-5)


def test_progress_counts_every_request_once(gpt2):
    ours, _ = gpt2
    steps = []
    requests = [*random_requests(30), ScoreRequest((), tuple(range(2, 90)))]
    scores(ours, requests, prompt_rows("causal_decoder", seq_length=64), micro_batch_size=2, advance=steps.append)
    assert sum(steps) == len(requests) and len(steps) > 3
    assert scores(ours, [], prompt_rows("causal_decoder")) == []


def test_logits_that_are_not_finite_are_told():
    _, ours = build_decoder(recipe_of(GPT2, max_positions=LENGTH))
    ours.decoder.final_layernorm.weight.data[0] = float("nan")
    with pytest.raises(RunFault, match="take an earlier checkpoint with --load-iteration"):
        scores(ours, random_requests(2), prompt_rows("causal_decoder"))


def test_the_rule_is_told():
    assert prompt_rows("causal_decoder").rule == (
        "The context is read from left to right; the continuation is predicted behind it."
    )
    assert "read both ways" in prompt_rows("prefix_decoder").rule
    assert "from left to right" in prompt_rows("prefix_decoder", reads_running_text=True).rule
    assert prompt_rows("encoder_decoder", ends_inputs=True).rule == (
        "The encoder reads the context, with an end token behind it, both ways; the decoder predicts the continuation."
    )
