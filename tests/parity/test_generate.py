"""Generation against transformers, and what it promises beyond."""

import numpy as np
import pytest
import torch
from families import LENGTH, copy_weights, make_theirs

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.basics.errors import RunFault, UserError
from megatron.data.collate import collate
from megatron.evaluation.generate import check_lengths, generate
from megatron.evaluation.options import GenerationOptions, TrainedModelOptions
from megatron.evaluation.prompt_rows import PromptRows
from megatron.records.example import SequencePair
from tests.oracles.one_process_model import DEVICE, VOCABULARY, build_decoder, one_process_grid, recipe_of

PROMPTS = [[5, 6, 7], [50], list(range(1, 60)), [3, 3, 3, 3]]
GPT2 = {"num_layers": 3, "hidden_size": 48, "num_attention_heads": 4, "activation": "gelu_tanh"}
NO_TOKEN = VOCABULARY + 1  # an end of document that is never written


@pytest.fixture(scope="module")
def models():
    theirs = make_theirs("gpt2", torch.float64)
    for parameter in theirs.transformer.h.parameters():
        parameter.data *= 4 if parameter.dim() > 1 else 1  # else the layers say little, and one token always wins
    theirs.transformer.ln_f.bias.data.zero_()
    _, ours = build_decoder(recipe_of(GPT2, max_positions=LENGTH), dtype=torch.float64)
    copy_weights("gpt2", theirs, ours)
    return ours, theirs


def prompt_rows(
    architecture="causal_decoder", end_token=NO_TOKEN, reads_running_text=False, ends_inputs=False, **rules
):
    """Rows of LENGTH tokens."""
    return PromptRows(
        architecture=ARCHITECTURES[architecture](),
        rules=RowRules(**{"seq_length": LENGTH, "end_token": end_token, **rules}),
        reads_running_text=reads_running_text,
        ends_inputs=ends_inputs,
    )


def written(ours, prompts=PROMPTS, rows=None, **options):
    return generate(
        [ours],
        one_process_grid(),
        DEVICE,
        prompts,
        GenerationOptions(**options),
        rows or prompt_rows(),
        vocabulary_size=VOCABULARY,
    )


def test_greedy_is_transformers(models):
    ours, theirs = models
    got = written(ours, max_new_tokens=20, temperature=0.0)
    for prompt, new_tokens in zip(PROMPTS, got, strict=True):
        tokens = torch.tensor([prompt])
        whole = theirs.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert new_tokens == whole[0, len(prompt) :].tolist()
        for end in (0, 7, 19):  # and the likeliest token after a whole forward pass
            seen = torch.tensor([[*prompt, *new_tokens[:end]]])
            with torch.no_grad():
                assert new_tokens[end] == int(theirs(seen).logits[0, -1].argmax())
    assert len({tuple(tokens) for tokens in got}) == len(PROMPTS)


def test_padding_of_the_vocabulary_is_never_written(models):
    """With a threshold above all real logits, padded columns (logit 0) would win."""
    ours, _ = models
    with pytest.MonkeyPatch.context() as patch:
        forward = ours.forward
        patch.setattr(ours, "forward", lambda *batch: forward(*batch) - 1e4 * (torch.arange(128) < VOCABULARY))
        assert max(max(tokens) for tokens in written(ours, max_new_tokens=3, temperature=0.0)) < VOCABULARY


def test_it_stops_at_the_end_of_the_document(models):
    ours, _ = models
    free = written(ours, max_new_tokens=20, temperature=0.0)
    end = free[0][4]
    stopping = written(ours, rows=prompt_rows(end_token=end), max_new_tokens=20, temperature=0.0)
    for tokens, stopped in zip(free, stopping, strict=True):
        # A row that ends keeps what it has, the others go on.
        assert stopped == (tokens[: tokens.index(end) + 1] if end in tokens else tokens)


def test_draws_depend_on_seed_and_number_of_the_prompt_alone(models):
    ours, _ = models
    same = [[5, 6, 7]] * 3
    drawn = written(ours, same, max_new_tokens=12, seed=1)
    assert drawn == written(ours, same, max_new_tokens=12, seed=1)
    assert drawn == written(ours, same, max_new_tokens=12, seed=1, micro_batch_size=2)
    assert drawn[:2] == written(ours, same[:2], max_new_tokens=12, seed=1)
    assert drawn != written(ours, same, max_new_tokens=12, seed=2)
    assert len({tuple(tokens) for tokens in drawn}) == 3


def test_dropout_is_off():
    recipe = recipe_of({**GPT2, "hidden_dropout": 0.5, "attention_dropout": 0.5}, max_positions=LENGTH)
    _, ours = build_decoder(recipe)
    ours.train()
    assert written(ours, max_new_tokens=5, temperature=0.0) == written(ours, max_new_tokens=5, temperature=0.0)


def test_logits_that_are_not_finite_are_told():
    _, ours = build_decoder(recipe_of(GPT2, max_positions=LENGTH))
    ours.decoder.final_layernorm.weight.data[0] = float("nan")
    with pytest.raises(RunFault, match="take an earlier checkpoint with --load-iteration"):
        written(ours, max_new_tokens=1)


def test_prompts_must_leave_room():
    options = GenerationOptions(max_new_tokens=10)
    rows = prompt_rows(seq_length=16)  # the last new token is a label alone
    check_lengths([[1] * 7, [1]], options, rows)
    with pytest.raises(UserError) as raised:
        check_lengths([[1] * 8, [1], [1] * 9], options, rows)
    assert [fault.split(",")[0] for fault in raised.value.faults] == [
        "--prompt number 1 has 8 tokens",
        "--prompt number 3 has 9 tokens",
    ]
    assert raised.value.faults[0].endswith("; shorten it to 7 tokens.")
    with pytest.raises(UserError, match="--max-new-tokens 17 does not fit the model's rows; use 16 or less"):
        check_lengths([[1]], GenerationOptions(max_new_tokens=17), rows)
    two = prompt_rows("encoder_decoder", ends_inputs=True, seq_length=8, decoder_seq_length=10)
    check_lengths([[1] * 7], options, two)
    with pytest.raises(UserError, match="shorten it to 7 tokens"):
        check_lengths([[1] * 8], options, two)
    with pytest.raises(UserError, match="--max-new-tokens 11 does not fit the model's rows; use 10 or less"):
        check_lengths([[1]], GenerationOptions(max_new_tokens=11), two)


# (architecture, how prompts are given)
READINGS = [
    ("causal_decoder", {"reads_running_text": True}),
    ("causal_decoder", {"begins_with_start_token": True}),
    ("causal_decoder", {"ends_inputs": True}),
    ("prefix_decoder", {"reads_running_text": True}),
    ("prefix_decoder", {}),
    ("prefix_decoder", {"begins_with_start_token": True, "ends_inputs": True}),
    ("encoder_decoder", {"decoder_seq_length": 24}),
    ("encoder_decoder", {"decoder_seq_length": 24, "ends_inputs": True}),
]


@pytest.mark.parametrize(("architecture", "reading"), READINGS, ids=lambda value: str(value))
def test_each_token_is_the_likeliest_one_of_a_training_example(architecture, reading):
    """The whole text is arranged as training would, inputs and targets, and read in one pass without generation."""
    model = {**GPT2, "num_layers": 2, "position_embedding_type": "relative", "init_method_std": 0.2}
    recipe = recipe_of(model, max_positions=LENGTH, architecture=architecture, lengths=(LENGTH, 24))
    _, ours = build_decoder(recipe, dtype=torch.float64)
    rows = prompt_rows(architecture, end_token=1, **reading)
    got = written(ours, rows=rows, max_new_tokens=12, temperature=0.0)
    for prompt, new_tokens in zip(PROMPTS, got, strict=True):
        inputs = [*prompt, *([1] if rows.ends_inputs else [])]
        parts = ([], [*prompt, *new_tokens]) if rows.reads_running_text else (inputs, new_tokens)
        example = SequencePair(*(np.array(part, np.int32) for part in parts))
        row = rows.architecture.arrange([example], rows.rules)
        with torch.no_grad():
            logits = ours(collate([row]))[:, 0, :VOCABULARY]
        predicted = np.flatnonzero(row.loss_mask)[-len(new_tokens) :]
        assert row.labels[predicted].tolist() == new_tokens
        assert logits[predicted].argmax(-1).tolist() == new_tokens


def test_a_prefix_decoder_reads_prompts_both_ways():
    """Its first new token may depend on what the prompt's earlier positions make of its later ones."""
    model = {**GPT2, "num_layers": 2, "position_embedding_type": "rope", "init_method_std": 0.2}
    _, ours = build_decoder(recipe_of(model, max_positions=LENGTH), dtype=torch.float64)
    both_ways = written(ours, rows=prompt_rows("prefix_decoder"), max_new_tokens=12, temperature=0.0)
    one_way = written(ours, rows=prompt_rows("causal_decoder"), max_new_tokens=12, temperature=0.0)
    assert both_ways != one_way
    running = prompt_rows("prefix_decoder", reads_running_text=True)
    assert written(ours, rows=running, max_new_tokens=12, temperature=0.0) == one_way


@pytest.mark.parametrize("settings", [{"top_k": 5}, {"top_p": 0.5}])
def test_settings_without_effect_are_refused(settings):
    with pytest.raises(UserError, match="--top-k and --top-p choose nothing at --temperature 0"):
        GenerationOptions(temperature=0.0, **settings)
    GenerationOptions(**settings)


def test_a_model_must_be_named():
    with pytest.raises(UserError, match="--load is missing"):
        TrainedModelOptions()
