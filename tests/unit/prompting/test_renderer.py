"""Rendering: against plain Jinja and promptsource's rules, and what a person is told."""

import random
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.basics.errors import UserError
from megatron.prompting.renderer import Renderer
from megatron.prompting.template import Prompted, Template, fault_of_choices

COPA = {
    "premise": "My body cast a shadow over the grass.",
    "choice1": "The sun was rising.",
    "choice2": "The grass was cut.",
    "question": "cause",
    "label": 0,
}


def template(jinja: str, answer_choices: str | None = None, name: str = "mine") -> Template:
    return Template("some/set", name, jinja, answer_choices, True, False, (), "id", "")


def rendered(jinja: str, example: dict[str, Any], answer_choices: str | None = None) -> Prompted | None:
    return Renderer(template(jinja, answer_choices)).render(example, 0)


def test_inputs_targets_and_choices() -> None:
    jinja = """
        {{ premise }} {% if question == "cause" %} This happened because... {% else %} As a result... {% endif %}
        Pick: - {{ answer_choices | join("\\n- ") }} ||| {% if label != -1 %}{{ answer_choices[label] }}{% endif %}"""
    found = rendered(jinja, COPA, "{{ choice1 }} ||| {{choice2}}")
    assert found is not None
    assert found.inputs.startswith("My body cast") and found.inputs.endswith("- The grass was cut.")
    assert found.targets == ("The sun was rising.",)
    assert found.choices == ("The sun was rising.", "The grass was cut.")
    assert fault_of_choices(found) is None


def test_parts_are_stripped_and_further_ones_are_targets_too() -> None:
    found = rendered(" {{ q }}  ||| \n one|||two \n|||  ||| {{ r }}", {"q": "What?", "r": "three"})
    assert found == Prompted("What?", ("one", "two", "three"), None)


@pytest.mark.parametrize(
    "jinja",
    [
        "{% if no %}{{ q }} ||| a{% endif %}",
        "{% if no %}{{ q }}{% endif %} ||| a",
        "{{ q }} ||| {% if no %}a{% endif %}",
    ],
)
def test_a_template_that_does_not_apply_leaves_the_example_out(jinja: str) -> None:
    assert rendered(jinja, {"q": "What?", "no": False}) is None
    assert rendered(jinja, {"q": "What?", "no": True}) == Prompted("What?", ("a",), None)


TEXTS = st.text(st.sampled_from("ab |\n{}%é'"), max_size=12)


@given(TEXTS, st.lists(TEXTS, max_size=3), st.integers(0, 2))
@settings(deadline=None, max_examples=60)
def test_the_separator_in_an_example_is_text(text: str, words: list[str], length: int) -> None:
    """Whatever an example says, in columns or inside of them, it neither splits the prompt nor changes lengths."""
    found = rendered(
        "<{{ text }}> <{{ words|join('+') }}> {{ text|length }} <{{ text[:5] }}> ||| <{{ answer_choices[0] }}>",
        {"text": text, "words": words},
        "<{{ text }}>|||{{ words|length }}",
    )
    assert found is not None
    assert found.inputs == f"<{text}> <{'+'.join(words)}> {len(text)} <{text[:5]}>"
    assert found.targets == (f"<<{text}>>",)
    assert found.choices == (f"<{text}>", str(len(words)))


BARS = st.text(st.sampled_from("ab| "), max_size=5)


@given(BARS, BARS, BARS)
@settings(deadline=None, max_examples=100)
def test_bars_beside_a_separator_stay_where_they_are(first: str, second: str, third: str) -> None:
    """Values stand tight against the separators and against one another."""
    example = {"a": first, "b": second, "c": third, "choices": [first, second]}
    found = rendered("{{ a }}{{ b }}|||{{ c }}|||{{ b ~ c }}", example, "{{ choices|join('|||') }}")
    inputs, targets = (first + second).strip(), tuple(filter(None, (third.strip(), (second + third).strip())))
    expected = Prompted(inputs, targets, (first.strip(), second.strip())) if inputs and targets else None
    assert found == expected


@pytest.mark.parametrize(
    ("jinja", "inputs"),
    [
        ("{{ words }} ||| a", "['a|||b', None]"),
        ("{{ data }}|||a", "{'a|||b': 'c||'}"),
        ("{{ data['a|||b'] }}|||a", "c||"),
        ("{% for key in data %}{{ key }}{% endfor %}|||a", "a|||b"),
        ("{{ words[0][:3] }} ||| a", "a||"),
        ("{{ words[0].split('|')[0] }}||||a", "a"),
        (r"{{ marked }} {{ [marked] }} \ufdd0 ||| a", "\ufffd\ufffd\ufffd ['\ufffd\ufffd\ufffd'] \\ufdd0"),
    ],
)
def test_the_separator_inside_of_values(jinja: str, inputs: str) -> None:
    found = rendered(jinja, {"words": ["a|||b", None], "data": {"a|||b": "c||"}, "marked": "\ufdd0" * 3})
    assert found is not None and (found.inputs, len(found.targets)) == (inputs, 1)


@pytest.mark.parametrize(
    "source",
    [
        "{{ words|map('upper')|list }}",
        "{{ words.index('b') }} {{ text.split()[-1].lower() }}",
        "{% for k, v in data.items() %}{{ loop.index }}/{{ loop.length }} {{ k }}={{ v }}{{ ',' if not loop.last }}"
        "{% endfor %}",
        "{% set n = namespace(s='') %}{% for w in words %}{% set n.s = n.s + w ~ '-' %}{% endfor %}{{ n.s }}",
        "{{ none.key }}{{ data.nothing.key }}{{ '%(a)s %(b)02d'|format(a='x', b=3) }}",
        "{{ data.key }} {{ data['key'] }} {{ words.0 }} {{ words[-1] }} {{ words[9] }}|",
        "{% for a, b in zip(words, range(3)) %}{{ a }}{{ b }}{% endfor %}",
        "{{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 5 }} {{ 'ab' * 3 }} {{ [1] * 2 + [3] }} {{ 1 / 4 }}",
        "{{ '%0.1f'|format(number|float) }} {{ '%d%%' % number }} {{ number|round(1) }} {{ none }} {{ true }}",
        "{{ missing is defined }} {{ missing|default('gone') }} {{ text is string }}",
        "{{ text|replace('t', 'T')|capitalize|truncate(5) }}{{ words|unique|join }} {{ words|select('in','a')|list }}",
        "{% macro m(x) %}<{{ x }}{{ caller() if caller }}>{% endmacro %}{{ m(1) }}{% call m(2) %}!{% endcall %}",
        "{% set l = [] %}{% for w in words %}{{ l.append(w) or '' }}{% endfor %}{{ l|length }} {{ l.pop() }}",
        "{% set x %}a {{ text }}{% endset %}{{ x|upper }} {{ [x, 1, none]|join('/') }}",
        "{{ text if number > 9 }}.{{ words|first }}{{ []|first }}{{ words|max }}{{ {'a': 1}|length }}",
        "{{ text.replace('e', '') }}{{ '-'.join(words) }}{% for c in text if c=='t' %}{{ c }}{% endfor %}",
        "{% filter upper %}{{ text }}{% endfilter %}{% with a = 1 %}{{ a }}{% endwith %}{# #}{% raw %}{{{%endraw%}",
    ],
)
def test_jinja_means_what_it_means_elsewhere(source: str) -> None:
    """Our guards against Jinja as it is, on what a template may do."""
    example = {
        "words": ["b", "a", "b"],
        "text": "The texT",
        "data": {"key": "value", "other": [1], "nothing": None},
        "number": 3.25,
    }
    plain = jinja2.Environment()
    plain.globals["zip"] = zip
    expected = plain.from_string(source + "|||x").render(**example).split("|||")[0].strip()
    found = rendered(source + "|||x", example)
    assert found is not None and found.inputs == expected


def test_choice_is_a_function_of_seed_template_and_example() -> None:
    jinja = "{{ words|choice }} {{ range(100)|choice }} {{ words|random }} ||| {{ words|map('upper')|choice }}"
    example = {"words": list("abcdefgh")}
    renderer, state = Renderer(template(jinja)), random.getstate()
    there = [renderer.render(example, index) for index in range(40)]
    other = Renderer(template(jinja))
    back = [other.render(example, index) for index in reversed(range(40))]
    assert there == back[::-1] and random.getstate() == state
    assert len({str(prompted) for prompted in there}) > 35
    reseeded = Renderer(template(jinja), seed=5)
    assert there != [reseeded.render(example, index) for index in range(40)]
    drawn = {prompted.inputs[0] for prompted in there if prompted is not None}
    assert drawn <= set("abcdefgh") and len(drawn) > 5


@pytest.mark.parametrize(
    "jinja",
    [
        "{{ ['a', 'b', 'c', 'd']|choice }} ||| x",
        "{{ 'abcd'|random }} ||| x",
        "{% set chosen = ['a', 'b', 'c', 'd']|choice %}{{ chosen }} ||| x",
        "{{ [['a', 'b', 'c', 'd']]|map('choice')|first }} ||| x",
        "{{ [['a', 'b', 'c', 'd']]|map('cho' ~ 'ice')|first }} ||| x",
        "{% for order in [[0, 1, 2, 3]|choice] %}{{ 'abcd'[order] }}{% endfor %} ||| x",
    ],
)
def test_a_choice_of_constants_is_another_one_for_each_example(jinja: str) -> None:
    """As the orders of answers in promptsource's templates of SciQ: compilers like to do such things once."""
    renderer = Renderer(template(jinja))
    drawn = [prompted.inputs for prompted in (renderer.render({}, index) for index in range(200)) if prompted]
    assert {letter: drawn.count(letter) > 25 for letter in "abcd"} == dict.fromkeys("abcd", True)


def test_promptsources_other_filters() -> None:
    found = rendered("{{ words|most_frequent|join }} {{ 'x'|highlight }} ||| y", {"words": list("bacab")})
    assert found is not None and found.inputs == "ba <span style='color: #F08080'>x</span>"


def test_a_missing_column_is_named_with_template_and_example() -> None:
    with pytest.raises(UserError) as told:
        Renderer(template("{{ text }} {{ quetion }} ||| a")).render({"text": "x", "question": "y"}, 7)
    assert str(told.value) == "template 'mine' of some/set names the column quetion, example 7 has text, question."
    with pytest.raises(UserError, match="names the column quetion"):
        rendered("{% if quetion %}a{% endif %} ||| a", {"text": "x"})
    with pytest.raises(UserError, match=r"fails on example 0: UndefinedError: .* has no attribute 'txt'"):
        rendered("{{ choices.txt }} ||| a", {"choices": {"text": []}})


def test_columns_with_hyphens_have_underscores() -> None:
    assert rendered("{{ a_b }} ||| x", {"a-b": "c"}) == Prompted("c", ("x",), None)
    with pytest.raises(UserError, match="two columns are a_b in templates, where hyphens are underscores"):
        rendered("{{ a_b }} ||| x", {"a-b": "c", "a_b": "d"})


@pytest.mark.parametrize(
    ("jinja", "fault"),
    [
        ("{{ words.index('z') }} ||| a", r"fails on example 3: ValueError: 'z' is not in list"),
        ("{{ words|map('nosuch')|list }} ||| a", "fails on example 3: TemplateRuntimeError: No filter named 'nosuch'"),
        ("{{ text + 1 }} ||| a", "fails on example 3: TypeError"),
        ("{{ []|choice }} ||| a", "fails on example 3: ValueError: choice has nothing to choose from"),
        ("{{ words.index('z' * 9999) }} ||| a", r"fails on example 3: ValueError: 'z{280,300}\.\.\.\.$"),
    ],
)
def test_what_fails_is_told_with_its_example(jinja: str, fault: str) -> None:
    with pytest.raises(UserError, match="template 'mine' of some/set " + fault):
        Renderer(template(jinja)).render({"words": ["a"], "text": "b"}, 3)


def test_a_column_may_not_be_called_as_the_choices() -> None:
    with pytest.raises(UserError, match="the column answer_choices has the name"):
        rendered("{{ a }} ||| b", {"a": "x", "answer_choices": ["y"]})


@pytest.mark.parametrize(
    ("choices", "target", "fault"),
    [
        (("a", "b"), "a", None),
        (None, "a", "no answer choices"),
        (("a", "b", "a"), "a", "choices that are not distinct: 'a', 'b', 'a'"),
        (("a", ""), "a", "an empty choice"),
        (("a",), "a", "only one choice"),
        (("a", "b"), "c", "the target 'c', which is not among the choices 'a', 'b'"),
        (tuple(map(str, range(20))), "x" * 99, "'0', '1', '2', '3', '4', '5', '6', '7' and 12 more"),
    ],
)
def test_choices_that_cannot_be_ranked(choices: tuple[str, ...] | None, target: str, fault: str | None) -> None:
    found = fault_of_choices(Prompted("inputs", (target,), choices))
    assert (found is None) if fault is None else (found is not None and fault in found)
