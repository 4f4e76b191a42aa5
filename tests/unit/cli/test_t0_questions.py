"""What is the same for all ranks of T0-Eval, and which data sets a run trains on."""

from dataclasses import replace
from fractions import Fraction

from megatron.cli.t0_eval import T0Questions, training_prefixes
from megatron.data.options import DataOptions
from megatron.evaluation.prompted_tasks import PromptedExamples, PromptedTask
from megatron.prompting.mixture import HeldOutTask
from megatron.prompting.template import Prompted, Template


def outline(*questions):
    template = Template("some/set", "ask", "a ||| b", "c", True, False, (), "ask", "")
    prompt = PromptedExamples(template, ("accuracy",), [*enumerate(questions)])
    task = HeldOutTask("mine", "mine", None, "validation", 1, Fraction(1, 2))
    return T0Questions([PromptedTask(task, "here", (prompt,))], {}, "templates").outline


def test_the_outline_is_of_contents():
    """Ranks that ask the same number of other questions would wait for one another."""
    question = Prompted("ask", ("a",), ("a", "b"))
    others = (
        replace(question, inputs="asked"),
        replace(question, targets=("b",)),
        replace(question, choices=("a", "c")),
        replace(question, choices=None),
    )
    assert outline(question) == outline(replace(question))
    assert len({str(outline(one)) for one in (question, *others)}) == 5
    assert outline(question, question) != outline(question)


def test_the_data_sets_of_a_run_are_those_of_prompts():
    blend = DataOptions(data_path=["1", "tasks/train/a", "2", "tasks/train/b"])
    text, prompts = {"objective": "full_lm"}, {"objective": "multitask"}
    assert training_prefixes("full_lm", blend, [text, text]) == []
    assert training_prefixes("multitask", blend, [text, prompts]) == ["tasks/train/a", "tasks/train/b"]
    assert training_prefixes("multitask", DataOptions(train_data_path=["only"]), [prompts]) == ["only"]
    for earlier in (prompts, {"imported": "t5", "objective": None}):  # whose data nothing names
        assert training_prefixes("full_lm", blend, [earlier, text]) is None
