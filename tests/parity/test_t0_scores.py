"""T0-Eval's log-likelihoods and accuracies against models written out in float64, for every architecture."""

import numpy as np
import pytest
import torch
from families import LENGTH, copy_weights, make_theirs
from test_transformers_t5 import make_both

from megatron.architectures.registry import ARCHITECTURES
from megatron.architectures.row_rules import RowRules
from megatron.evaluation.answering_model import TrainedModel
from megatron.evaluation.encoded_prompts import encode_tasks
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.prompted_tasks import PromptedExamples, PromptedTask
from megatron.evaluation.score import score
from megatron.evaluation.t0_eval import score_tasks
from megatron.objectives.multitask import Multitask
from megatron.prompting.mixture import HeldOutTask
from megatron.prompting.template import Prompted, Template
from tests.oracles.gpt2_by_hand import gpt2_logits
from tests.oracles.one_process_model import DEVICE, VOCABULARY, build_decoder, one_process_grid, recipe_of

GPT2 = {"num_layers": 3, "hidden_size": 48, "num_attention_heads": 4, "activation": "gelu_tanh"}
END, START = 1, 0


class Numbers:
    """A tokenizer of numbers: "5 6" is two tokens."""

    eod_id = END

    def encode_batch(self, texts):
        return [np.array([*map(int, text.split())], np.int32) for text in texts]


def questions():
    rng = np.random.default_rng(0)

    def text(longest):
        return " ".join(map(str, rng.integers(2, VOCABULARY, rng.integers(1, longest))))

    for number in range(16):
        choices = tuple({text(5): None for _ in range(2 + number % 3)})
        if len(choices) > 1:
            yield Prompted(text(30), (choices[number % len(choices)],), choices)


def decoder_by_hand(sees_inputs_both_ways):
    theirs = make_theirs("gpt2", torch.float64)
    for parameter in theirs.transformer.h.parameters():
        parameter.data *= 3 if parameter.dim() > 1 else 1  # else contexts say little
    _, ours = build_decoder(recipe_of(GPT2, max_positions=LENGTH), backend="fused_softmax", dtype=torch.float64)
    copy_weights("gpt2", theirs, ours)

    def logits(inputs, target):
        tokens = torch.tensor([*inputs, *target])
        mask = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
        if sees_inputs_both_ways:
            mask[: len(inputs), : len(inputs)] = True
        return gpt2_logits(theirs, tokens, mask)[len(inputs) - 1 : -1]

    return ours, logits


def encoder_decoder_by_hand():
    ours, theirs = make_both("t5-1.1")

    def logits(inputs, target):
        with torch.no_grad():
            return theirs(
                input_ids=torch.tensor([[*inputs]]), decoder_input_ids=torch.tensor([[START, *target[:-1]]])
            ).logits[0]

    return ours, logits


MODELS = {
    "causal_decoder": lambda: decoder_by_hand(False),
    "prefix_decoder": lambda: decoder_by_hand(True),
    "encoder_decoder": encoder_decoder_by_hand,
}


@pytest.mark.parametrize("architecture", MODELS)
def test_choices_score_as_the_model_written_out_says(architecture):
    ours, logits = MODELS[architecture]()
    asked = []

    def scored(requests):
        found = score([ours], one_process_grid(), DEVICE, requests, rows, vocabulary_size=VOCABULARY)
        asked.extend(zip(requests, found, strict=True))
        return found

    rows = PromptRows(
        architecture=ARCHITECTURES[architecture](),
        rules=RowRules(seq_length=LENGTH, decoder_seq_length=40, end_token=END, start_token=START),
        reads_running_text=False,
        ends_inputs=Multitask.ends_inputs,
    )
    model = TrainedModel(scored, lambda *_: [], Numbers(), rows, 4)
    own = [*enumerate(questions())]
    template = Template("some/set", "ask", "a ||| b", "c", True, False, (), "ask", "")
    prompt = PromptedExamples(template, ("accuracy", "accuracy_per_token"), own)
    task = HeldOutTask("mine", "mine", None, "validation", 1, 0)
    (found,) = score_tasks(encode_tasks([PromptedTask(task, "here", (prompt,))], model), model)
    right, values = [], iter(asked)
    for _, question in own:
        inputs = [*map(int, question.inputs.split())]
        sums = []
        for choice in question.choices:
            target = [*map(int, choice.split()), END]
            request, result = next(values)
            assert request.context == tuple(inputs) and request.continuation == tuple(target)
            likelihoods = logits(inputs, target).double().log_softmax(-1)
            sums.append(float(likelihoods[range(len(target)), target].sum()))
            assert result.log_likelihood == pytest.approx(sums[-1], abs=1e-5)
        right.append(question.choices[sums.index(max(sums))] in question.targets)
    assert found.prompts[0].measures["accuracy"].value == sum(right) / len(right)
    assert 0 < sum(right) < len(right)
