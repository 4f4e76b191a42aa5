"""The card of an export says what the model is and how it is loaded, and takes a verdict in its place."""

import pytest

from megatron.basics.errors import UserError
from megatron.conversion.choose_family import family_for
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.export import plan_export
from megatron.conversion.model_card import CARD, NOT_COMPARED, write_card, write_verdict
from megatron.conversion.provenance import Provenance, imported_stage
from megatron.modeling.options import ModelOptions

T5 = {
    "position_embedding_type": "relative",
    "normalization": "RMSNorm",
    "norm_epsilon": 1e-6,
    "disable_bias_linear": True,
    "softmax_scale": 1.0,
    "activation": "geglu_tanh",
    "untie_embeddings_and_output_weights": True,
}


def card_of(folder, architecture, family=None, *, stages=(), starts=False, **model):
    described = DescribedModel(
        architecture=architecture,
        model=ModelOptions(num_layers=2, hidden_size=32, num_attention_heads=4, **model),
        vocabulary_size=101,
        max_positions=40,
        begins_with_start_token=starts,
        start_token=0 if starts else None,
        end_token=1,
        pad_token=0,
    )
    plan = plan_export(family_for(described, family), 10**9)
    provenance = Provenance(
        architecture=architecture,
        objective="prefix_lm",
        iteration=12345,
        lineage=list(stages),
        seq_length=40,
        decoder_seq_length=None,
        begin_with_start_token=starts,
    )
    write_card(folder, "first", plan, provenance, from_masters=False)
    return (folder / CARD).read_text()


def test_a_causal_decoder(tmp_path):
    stages = [
        imported_stage("causal_decoder", "full_lm", "gpt2 | <b>"),
        {"architecture": "![x](http://y)", "objective": "a | b", "tokens": 1, "loss_tokens": 1},
        {"architecture": "causal_decoder", "objective": "full_lm", "tokens": 0, "loss_tokens": 0},
        {"architecture": "causal_decoder", "objective": "prefix_lm", "tokens": 168_000_000, "loss_tokens": 84_000_000},
    ]
    card = card_of(tmp_path, "causal_decoder", stages=stages)
    assert "A causal decoder of 29,984 parameters, exported by Triarch as a `GPT2LMHeadModel`." in card
    assert "| causal_decoder | made elsewhere: gpt2 _ _b_ | unknown | unknown |" in card
    assert "| __x__http_//y_ | a _ b | 1 | 1 |" in card
    assert "| causal_decoder | prefix_lm | 168,000,000 | 84,000,000 |" in card and card.count("| causal_decoder |") == 2
    assert "AutoModelForCausalLM" in card and "trust_remote_code" not in card and "of step 12,345" in card


def test_a_prefix_decoder_with_its_own_file(tmp_path):
    card = card_of(tmp_path, "prefix_decoder", starts=True)
    assert 'AutoModelForCausalLM.from_pretrained("first", trust_remote_code=True)' in card
    assert "--model_args pretrained=first,trust_remote_code=True" in card and "modeling_triarch.py" in card
    assert "Texts begin with the start token" in card and "`generate` reads a prompt both ways" in card
    assert "Inputs ended with the end token" in card


def test_a_prefix_decoder_that_became_causal(tmp_path):
    assert "reads them from left to right" in " ".join(card_of(tmp_path, "prefix_decoder", "gpt2").split())


def test_an_encoder_decoder(tmp_path):
    card = card_of(tmp_path, "encoder_decoder", **T5)
    assert "An encoder-decoder of " in card and "AutoModelForSeq2SeqLM" in card and "text2text-generation" in card
    assert "`lm_eval --model hf --model_args pretrained=first --tasks" in card and "`--device cpu`" in card
    assert "once more as `encoder.embed_tokens.weight`, `decoder.embed_tokens.weight`" in card
    tied = card_of(tmp_path, "encoder_decoder", **{**T5, "untie_embeddings_and_output_weights": False})
    assert "once more" not in tied
    own_head, no_head = (int(text.split(" parameters")[0].split()[-1].replace(",", "")) for text in (card, tied))
    assert own_head - no_head == 101 * 32  # copies do not count


def test_a_head_that_lm_eval_would_tie(tmp_path):
    card = card_of(tmp_path, "encoder_decoder", relative_bias_per_layer=True, scale_logits=True, **T5)
    assert "`UMT5ForConditionalGeneration`" in card and "tools/evaluate.py --hf first" in card


@pytest.mark.parametrize("times", [1, 2])
def test_what_people_write_into_a_card_stays(times, tmp_path):
    before = card_of(tmp_path, "causal_decoder").replace("## Use", "See ## Comparison with the source.\n\n## Use")
    below = "\n## License\n\nApache-2.0, and\n\n### More\n\n# The end\n"
    (tmp_path / CARD).write_text(before + below)
    for _ in range(times):
        write_verdict(tmp_path, "Equal to 1e-6.")
    assert (tmp_path / CARD).read_text() == before.replace(NOT_COMPARED, "Equal to 1e-6.") + below


def test_a_card_without_its_heading_and_one_of_no_text(tmp_path):
    (tmp_path / CARD).write_text("# Mine\n")
    write_verdict(tmp_path, "Equal.")
    assert (tmp_path / CARD).read_text() == "# Mine\n\n## Comparison with the source\n\nEqual.\n"
    (tmp_path / CARD).write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"README\.md cannot be read: it is not UTF-8\."):
        write_verdict(tmp_path, "Equal.")
    assert (tmp_path / CARD).read_bytes() == b"\xff\xfe"


@pytest.mark.parametrize("times", [1, 2])
def test_a_verdict_takes_the_last_place(times, tmp_path):
    before = card_of(tmp_path, "causal_decoder")
    assert before.endswith(f"\n\n{NOT_COMPARED}\n")
    for _ in range(times):
        write_verdict(tmp_path, "Equal to 1e-6.\n\nOn 4 rows.")
    assert (tmp_path / CARD).read_text() == before.replace(NOT_COMPARED, "Equal to 1e-6.\n\nOn 4 rows.")
