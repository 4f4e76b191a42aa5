"""What is the same for all ranks of T0-Eval."""

from dataclasses import replace
from fractions import Fraction

from megatron.cli.t0_eval import T0Questions
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
