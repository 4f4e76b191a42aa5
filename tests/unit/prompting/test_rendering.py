"""Rendering in worker processes: the same as in one, and the end of one that dies."""

import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from megatron.basics.errors import UserError
from megatron.prompting import renderer as renderer_module
from megatron.prompting.renderer import Renderer
from megatron.prompting.rendering import EXAMPLES_AT_A_TIME, ExampleToRender, UseFault, render_and_use, render_examples
from megatron.prompting.template import Template


def template(jinja: str, name: str = "mine") -> Template:
    return Template("some/set", name, jinja, "{{ a }} ||| b", True, False, (), name, "")


TEMPLATES = [
    template("{{ a|choice }} {{ a }} ||| {{ a }}", "one"),
    template("{% if b %}{{ a }} ||| b{% endif %}", "two"),
]
EXAMPLES: list[dict[str, Any]] = [
    {"a": f"text {number}", "b": number % 3} for number in range(5 * EXAMPLES_AT_A_TIME + 7)
]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [0, 1, len(EXAMPLES)])
def test_workers_make_what_one_renderer_makes(workers: int, count: int) -> None:
    found = list(render_examples(TEMPLATES, iter(EXAMPLES[:count]), seed=7, workers=workers))
    alone = [Renderer(one, 7) for one in TEMPLATES]
    assert [example.index for example in found] == list(range(count))
    for example in found:
        expected = tuple(one.render(EXAMPLES[example.index], example.index) for one in alone)
        assert example.prompted == expected


def test_each_example_goes_through_its_own_templates() -> None:
    chosen: list[tuple[int, ...]] = [(1, 0), (), (1,), (0,)]
    work = [ExampleToRender(10 * number, EXAMPLES[number], templates) for number, templates in enumerate(chosen)]
    found = list(render_and_use(TEMPLATES, work, lambda example, row: (example.index, row), seed=7, workers=2))
    alone = [Renderer(one, 7) for one in TEMPLATES]
    for (index, row), example in zip(found, work, strict=True):
        assert index == example.index
        assert row == tuple(alone[number].render(example.example, index) for number in example.templates)


def test_examples_are_taken_as_they_are_needed() -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield {"a": "x", "b": 1}

    stream = render_examples(TEMPLATES, endless(), workers=2)
    assert next(stream).index == 0
    stream.close()
    assert taken <= 6 * EXAMPLES_AT_A_TIME


def test_the_first_fault_is_told_whatever_the_number_of_workers() -> None:
    faulty = [*EXAMPLES]
    faulty[70] = faulty[100] = {"a": "x"}
    for workers in (1, 3):
        with pytest.raises(UserError, match="template 'two' of some/set names the column b, example 70 has a"):
            list(render_examples(TEMPLATES, faulty, workers=workers))


def test_a_worker_that_dies_is_told_with_its_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """E.g. by the kernel, where the memory ran out."""
    monkeypatch.setattr(renderer_module, "_own_copy", lambda value: exit_at_once(value))
    with pytest.raises(UserError, match="template 'one' of some/set ended the process that rendered it on example 0"):
        list(render_examples(TEMPLATES, EXAMPLES))


@pytest.mark.parametrize(
    ("use", "kind", "fault"),
    [
        (lambda example, row: row[5], UseFault, r"on example 3:\n(.|\n)*IndexError: tuple index"),
        (lambda example, row: [0] * 2**40, UserError, "^the prompts of example 3 take more memory"),
        (
            lambda example, row: exit_at_once(row),
            UserError,
            "^what is made of the prompts of some/set ended .* example 3",
        ),
        (lambda example, row: time.sleep(9), UserError, "^what is made of the prompts of some/set takes more than 0.5"),
    ],
)
def test_no_template_is_blamed_for_what_is_made_of_its_prompts(use: Any, kind: type[Exception], fault: str) -> None:
    work = [ExampleToRender(3, EXAMPLES[0], (0, 1))]
    with pytest.raises(kind, match=fault):
        list(render_and_use(TEMPLATES, work, use, seconds=0.5))


def exit_at_once(value: Any) -> Any:
    os._exit(9)


def test_no_worker_outlives_its_use() -> None:
    before = children()
    stream = render_examples(TEMPLATES, EXAMPLES, workers=2)
    next(stream)
    assert len(children() - before) == 2
    stream.close()
    assert children() == before


def test_more_workers_than_a_process_may_have_are_refused_and_none_stays() -> None:
    before = children()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 16, hard))
    try:
        with pytest.raises(UserError, match=r"of 30 workers \d+ could be started \(Too many open files\); take fewer"):
            list(render_examples(TEMPLATES, EXAMPLES, workers=30))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert children() == before


def children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())
