"""Questions as the model takes them: token ids of inputs and choices, cut to T0's lengths and the model's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from megatron.evaluation.answering_model import AnsweringModel
from megatron.evaluation.prompted_tasks import PromptedExamples, PromptedTask
from megatron.evaluation.rank_classification import ChoiceQuestion, Ids

MOST_INPUTS = 1024  # tokens, T0's length


@dataclass(frozen=True)
class EncodedPrompt:
    """What one template asks the model.

    prompt: with those of its questions that can be asked. choices: of its questions, where these have choices; inputs:
    of the others, to go on from, int32 [n]. cut: questions whose inputs lost tokens at their beginning.
    """

    prompt: PromptedExamples
    choices: tuple[ChoiceQuestion, ...]
    inputs: tuple[Ids, ...]
    cut: int


@dataclass(frozen=True)
class EncodedTask:
    """A task and all that it asks the model."""

    task: PromptedTask
    prompts: tuple[EncodedPrompt, ...]


def encode_tasks(tasks: Sequence[PromptedTask], model: AnsweringModel) -> list[EncodedTask]:
    """Everything that can be told before the model computes: hours may lie between this and the scores.

    Raises UserError where most questions of a template cannot be asked, because their choices are too long for the
    model's rows or the same to its tokenizer.
    """
    return [EncodedTask(task, tuple(_encoded(prompt, model) for prompt in task.prompts)) for task in tasks]


def _encoded(prompt: PromptedExamples, model: AnsweringModel) -> EncodedPrompt:
    """Token ids of a prompt's questions; what cannot be asked as tokens is skipped from here on."""
    asked = replace(prompt, questions=[], skipped=replace(prompt.skipped))
    choices_of: list[ChoiceQuestion] = []
    to_write: list[Ids] = []
    inputs = model.encode_inputs([prompted.inputs for _, prompted in prompt.questions])
    texts = dict.fromkeys(choice for _, prompted in prompt.questions for choice in prompted.choices or ())
    ids_of = dict(zip(texts, model.encode_targets([*texts]), strict=True))
    cut = 0
    for (index, prompted), own in zip(prompt.questions, inputs, strict=True):
        choices = tuple(ids_of[choice] for choice in prompted.choices or ())
        new_tokens = max(map(len, choices), default=model.new_tokens)
        longest = min(MOST_INPUTS, model.longest_inputs(new_tokens))
        fault = _fault_of_tokens(choices, new_tokens, longest)
        if fault is not None:
            asked.skipped.add(index, fault)
            continue
        asked.questions.append((index, prompted))
        cut += len(own) > longest
        kept = own[max(len(own) - longest, 0) :]
        if choices:
            right = tuple(number for number, choice in enumerate(prompted.choices or ()) if choice in prompted.targets)
            choices_of.append(ChoiceQuestion(kept, choices, right))
        else:
            to_write.append(kept)
    asked.check_skipped()
    return EncodedPrompt(asked, tuple(choices_of), tuple(to_write), cut)


def _fault_of_tokens(choices: Sequence[Ids], new_tokens: int, longest: int) -> str | None:
    """Why a question cannot be asked though its texts can, to be read after "example 7 has"; None where it can.

    longest: tokens of inputs that there is room for beside so many new ones.
    """
    if longest < 1:
        what = "a choice" if choices else "an answer"
        return f"{what} of {new_tokens} tokens, which leaves no room for inputs in the model's rows"
    if any(len(choice) < 2 for choice in choices):  # its end token alone
        return "a choice that the tokenizer makes nothing of"
    if len({choice.tobytes() for choice in choices}) < len(choices):
        return "choices that are the same to the tokenizer"
    return None
