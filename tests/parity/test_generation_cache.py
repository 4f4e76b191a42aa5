"""Generation with a cache writes what a model writes that reads its whole row for every token."""

import itertools

import numpy as np
import pytest
import torch

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.evaluation.generate import generate
from megatron.evaluation.options import GenerationOptions
from megatron.evaluation.prompt_rows import PromptRows
from tests.oracles.one_process_model import DEVICE, VOCABULARY, build_decoder, one_process_grid, recipe_of
from tests.oracles.recomputed_text import recomputed_text

LENGTH, TARGETS, END = 40, 16, 1
MODEL = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "init_method_std": 0.25}
POSITIONS = {
    "learned": {},
    "rope": {
        "position_embedding_type": "rope",
        "num_query_groups": 2,
        "normalization": "RMSNorm",
        "qk_layernorm": True,
    },
    "alibi": {"position_embedding_type": "alibi"},
    "relative": {"position_embedding_type": "relative", "disable_bias_linear": True, "activation": "geglu"},
    "layered": {"position_embedding_type": "relative", "relative_bias_per_layer": True},
    "none": {"position_embedding_type": "none"},
}
ALL_POSITIONS = POSITIONS | {
    "relative in each layer": {"position_embedding_type": "relative", "relative_bias_per_layer": True}
}
READINGS = {
    "causal_decoder": {"reads_running_text": True},
    "prefix_decoder": {"begins_with_start_token": True, "ends_inputs": True},
    "encoder_decoder": {"ends_inputs": True},
}
random = np.random.default_rng(0)
PROMPTS = [random.integers(2, VOCABULARY, length).tolist() for length in (3, 20, 1, 20, 22)]


def model_and_rows(architecture, positions, backend="sdpa", dtype=torch.float64):
    recipe = recipe_of(
        {**MODEL, **ALL_POSITIONS[positions]},
        max_positions=LENGTH,
        architecture=architecture,
        lengths=(LENGTH, TARGETS),
    )
    _, chunk = build_decoder(recipe, backend=backend, dtype=dtype)
    reading = {"reads_running_text": False, "ends_inputs": False, **READINGS[architecture]}
    rules = RowRules(
        seq_length=LENGTH,
        decoder_seq_length=TARGETS,
        end_token=END,
        begins_with_start_token=reading.pop("begins_with_start_token", False),
    )
    return chunk, PromptRows(architecture=ARCHITECTURES[architecture](), rules=rules, **reading)


def written(chunk, rows, prompts=PROMPTS, stop=lambda *_: False, **options):
    return generate(
        [chunk],
        one_process_grid(),
        DEVICE,
        prompts,
        GenerationOptions(**options),
        rows,
        vocabulary_size=VOCABULARY,
        stop=stop,
    )


@pytest.mark.parametrize(
    ("architecture", "positions"),
    [*itertools.product(READINGS, POSITIONS), ("encoder_decoder", "relative in each layer")],
)
def test_every_token_is_that_of_the_whole_row(architecture, positions):
    chunk, rows = model_and_rows(architecture, positions)
    options = {"max_new_tokens": 16, "temperature": 0.8, "seed": 3}
    texts = written(chunk, rows, **options, micro_batch_size=3)
    assert texts == recomputed_text(
        chunk, PROMPTS, texts, GenerationOptions(**options), rows, vocabulary_size=VOCABULARY
    )
    assert len({tuple(tokens) for tokens in texts}) == len(PROMPTS)
    assert max(map(len, texts)) == 16  # some rows go on when others have ended


@pytest.mark.parametrize("architecture", READINGS)
@pytest.mark.parametrize("positions", ["rope", "relative"])
def test_the_native_attention_reads_the_cache_as_well(architecture, positions):
    chunk, rows = model_and_rows(architecture, positions, backend="fused_softmax", dtype=torch.float32)
    options = {"max_new_tokens": 16, "temperature": 1.0}
    texts = written(chunk, rows, **options)
    assert texts == recomputed_text(
        chunk, PROMPTS, texts, GenerationOptions(**options), rows, vocabulary_size=VOCABULARY
    )


@pytest.mark.parametrize("architecture", READINGS)
def test_a_pass_takes_no_more_positions_than_are_new(architecture):
    """The first pass takes the longest prompt, every later one a single position."""
    chunk, rows = model_and_rows(architecture, "relative")
    lengths = []
    forward = chunk.forward
    chunk.forward = lambda batch, cache: lengths.append(batch.stream_length) or forward(batch, cache)
    written(chunk, rows, max_new_tokens=5, stop=lambda _, tokens: len(tokens) == 4)
    longest = max(map(len, PROMPTS)) + rows.ends_inputs
    first = longest + (architecture == "encoder_decoder" or rows.rules.begins_with_start_token)
    assert lengths == [first, 1, 1, 1]


def test_a_condition_ends_a_row_and_the_others_go_on():
    chunk, rows = model_and_rows("causal_decoder", "rope")
    options = {"max_new_tokens": 16, "temperature": 1.0}
    free = written(chunk, rows, **options)
    wanted = free[1][4]
    stopped = written(chunk, rows, **options, stop=lambda _, tokens: tokens[-1] == wanted)
    for tokens, shortened in zip(free, stopped, strict=True):
        assert shortened == (tokens[: tokens.index(wanted) + 1] if wanted in tokens else tokens)
    assert sum(map(len, stopped)) < sum(map(len, free))
