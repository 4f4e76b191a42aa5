"""Our class of lm-eval beside its own class `hf`, on the same weights and tokens."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from families import LENGTH, copy_weights, make_theirs
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.evaluation.generate import generate
from megatron.evaluation.lm_eval_adapter import TriarchLM
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.score import score
from tests.oracles.one_process_model import DEVICE, VOCABULARY, build_decoder, one_process_grid, recipe_of

GPT2 = {"num_layers": 3, "hidden_size": 48, "num_attention_heads": 4, "activation": "gelu_tanh"}
END = 1
WORDS = ["<pad>", "<end>", *(f"w{number}" for number in range(VOCABULARY - 2))]


class Words:
    """The same tokenizer as ours are used."""

    eod_id = END

    def __init__(self, theirs):
        self.theirs = theirs

    def encode(self, text):
        return self.theirs.encode(text, add_special_tokens=False)

    def encode_batch(self, texts):
        return [np.array(self.encode(text), np.int32) for text in texts]

    def decode(self, ids):
        return self.theirs.decode(ids, skip_special_tokens=True)


@pytest.fixture(scope="module")
def both():
    """(lm-eval's class, ours) around the same GPT-2."""
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")
    theirs = make_theirs("gpt2", torch.float32)
    for parameter in theirs.transformer.h.parameters():
        parameter.data *= 3 if parameter.dim() > 1 else 1  # else contexts say little
    _, ours = build_decoder(recipe_of(GPT2, max_positions=LENGTH))
    copy_weights("gpt2", theirs, ours)
    rows = PromptRows(
        architecture=ARCHITECTURES["causal_decoder"](),
        rules=RowRules(seq_length=LENGTH, end_token=END),
        reads_running_text=True,
        ends_inputs=False,
    )
    place = ([ours], one_process_grid(), DEVICE)
    how = {"prompt_rows": rows, "vocabulary_size": VOCABULARY}
    lm = TriarchLM(
        partial(score, *place, **how),
        lambda prompts, options, stop: generate(*place, prompts, options, rows, vocabulary_size=VOCABULARY, stop=stop),
        Words(tokenizer),
        rows,
        micro_batch_size=3,
    )
    return HFLM(pretrained=theirs.eval(), tokenizer=tokenizer, batch_size=4, device="cpu"), lm


def texts(count, seed, longest):
    rng = np.random.default_rng(seed)
    return [
        " ".join(WORDS[token] for token in rng.integers(2, VOCABULARY, rng.integers(1, longest))) for _ in range(count)
    ]


def requests_of(*arguments):
    return [SimpleNamespace(args=argument, arguments=argument) for argument in arguments]


def test_log_likelihoods_are_equal(both):
    """Contexts that fit, that are empty, and that lose tokens from the left."""
    hf, ours = both
    contexts = [*texts(12, 1, 30), "", *texts(2, 2, 3 * LENGTH)]
    pairs = [(context, f" {rest}") for context, rest in zip(contexts, texts(15, 3, 8), strict=True)]
    wanted, got = (lm.loglikelihood(requests_of(*pairs), disable_tqdm=True) for lm in (hf, ours))
    for (ours_value, ours_greedy), (value, greedy) in zip(got, wanted, strict=True):
        assert ours_value == pytest.approx(value, abs=1e-4)
        assert ours_greedy == greedy


def test_whole_texts_are_equal(both):
    hf, ours = both
    whole = [(text,) for text in texts(6, 4, 3 * LENGTH)]
    wanted, got = (lm.loglikelihood_rolling(requests_of(*whole), disable_tqdm=True) for lm in (hf, ours))
    assert got == pytest.approx(wanted, rel=1e-6, abs=1e-4)


def test_what_they_write_is_equal(both):
    hf, ours = both
    prompts = texts(5, 5, 20)
    settings = {"until": ["w7", "w30"], "max_gen_toks": 12, "do_sample": False}
    wanted, got = (
        lm.generate_until(requests_of(*((prompt, dict(settings)) for prompt in prompts)), disable_tqdm=True)
        for lm in (hf, ours)
    )
    assert got == wanted
