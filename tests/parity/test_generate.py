"""Generation against transformers, and what it promises beyond."""

import pytest
import torch
from families import LENGTH, copy_weights, make_theirs

from megatron.basics.errors import RunFault, UserError
from megatron.evaluation.generate import check_lengths, generate
from megatron.evaluation.options import GenerationOptions, TrainedModelOptions
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


def written(ours, prompts=PROMPTS, end_of_document=NO_TOKEN, **options):
    return generate(
        [ours],
        one_process_grid(),
        DEVICE,
        prompts,
        GenerationOptions(**options),
        seq_length=LENGTH,
        vocabulary_size=VOCABULARY,
        end_of_document=end_of_document,
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
        patch.setattr(ours, "forward", lambda batch: forward(batch) - 1e4 * (torch.arange(128) < VOCABULARY))
        assert max(max(tokens) for tokens in written(ours, max_new_tokens=3, temperature=0.0)) < VOCABULARY


def test_it_stops_at_the_end_of_the_document(models):
    ours, _ = models
    free = written(ours, max_new_tokens=20, temperature=0.0)
    end = free[0][4]
    for tokens, stopped in zip(
        free, written(ours, max_new_tokens=20, temperature=0.0, end_of_document=end), strict=True
    ):
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
    check_lengths([[1] * 6, [1]], options, seq_length=16)
    with pytest.raises(UserError) as raised:
        check_lengths([[1] * 7, [1], [1] * 9], options, seq_length=16)
    assert [fault.split(",")[0] for fault in raised.value.faults] == [
        "--prompt number 1 has 7 tokens",
        "--prompt number 3 has 9 tokens",
    ]
    with pytest.raises(UserError, match="--max-new-tokens 16 does not fit the model's rows of 16 tokens; use 8"):
        check_lengths([[1]], GenerationOptions(max_new_tokens=16), seq_length=16)


@pytest.mark.parametrize("settings", [{"top_k": 5}, {"top_p": 0.5}])
def test_settings_without_effect_are_refused(settings):
    with pytest.raises(UserError, match="--top-k and --top-p choose nothing at --temperature 0"):
        GenerationOptions(temperature=0.0, **settings)
    GenerationOptions(**settings)


def test_a_model_must_be_named():
    with pytest.raises(UserError, match="--load is missing"):
        TrainedModelOptions()
