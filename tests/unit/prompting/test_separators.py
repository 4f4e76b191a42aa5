"""What a "|||" in quotes is: a separator where it is printed, text where it is looked for."""

import jinja2
import pytest

from megatron.basics.errors import UserError
from megatron.prompting.renderer import Renderer
from megatron.prompting.template import Template

EXAMPLE = {"text": "one|||two", "other": "one", "words": ["a", "b|||c"], "data": {"x|||y": "z", "k": "a|||b"}}


def render(source: str) -> tuple[str, ...] | None:
    template = Template("some/set", "mine", source, None, True, False, (), "id", "")
    prompted = Renderer(template).render(EXAMPLE, 0)
    return None if prompted is None else (prompted.inputs, *prompted.targets)


@pytest.mark.parametrize(
    "source",
    [
        "{{ text.split('|||')[0] }}",
        "{{ text.split('|||')|join('+') }} {{ text.rsplit('|||', 1)[1] }} {{ text.partition('|||')[2] }}",
        "{{ text.replace('|||', ', ') }} {{ text|replace('|||', ', ') }} {{ text|replace(new='+', old='|||') }}",
        "{{ '|||' in text }} {{ text == 'one|||two' }} {{ 'yes' if text == 'one|||two' else 'no' }}",
        "{% if '|||' in text and not '|||' in other %}yes{% endif %}",
        "{{ text.count('|||') }} {{ text.find('|||') }} {{ text.index('|||') }} {{ text.startswith('one|||') }}",
        "{{ text.endswith('|||two') }}{{ text.removeprefix('one|||') }}{{ other.strip('o|||') }}",
        "{{ other|trim('o|||') }} {{ text.removesuffix('|||two') }}",
        "{{ data.get('x|||y') }} {{ data['x|||y'] }} {{ data['x' ~ '|||' ~ 'y'] }} {{ {'x|||y': 3}['x|||y'] }}",
        "{{ words|select('in', ['b|||c'])|list|length }} {{ words.index('b|||c') }}",
        "{{ [data]|map(attribute='x|||y')|first }} {{ words|join('|||') == 'a|||b|||c' }}",
        "{{ ('x' ~ '|||') == 'x|||' }} {{ 'b|||c' is in words }} {{ words is sameas('b|||c') }}",
        "{% set bars = '|||' %}{{ text.split(bars)[0] }} {{ bars in text }}",
        "{% set bars %}|||{% endset %}{{ text.split(bars)[0] }}",
        "{% for bars in ['|||', '++'] %}{{ text.split(bars)|length }}{% endfor %}",
        "{% with bars = '|||' %}{{ text.split(bars)[0] }}{% endwith %}",
        "{{ 'a ||| b'.find('|||') }}",
    ],
)
def test_what_is_looked_for_is_text(source: str) -> None:
    expected = jinja2.Environment().from_string(source).render(**EXAMPLE)
    assert render(source + "@|||x") == (expected + "@", "x") and "|||" not in expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ [other, 'b']|join('|||') }}",
        "{{ '|||'.join([other, 'b']) }}",
        "{{ other ~ '|||' ~ 'b' }}",
        "{{ other + '|||b' }}",
        "{{ '%s|||%s' % (other, 'b') }}",
        "{{ '%s|||%s'|format(other, 'b') }}",
        "{{ other.replace('e', 'e|||b') }}",
        "{{ other|replace('e', 'e|||b') }}",
        "{{ data.get('no', 'one|||b') }}",
        "{{ (other ~ '|||B').lower() }}",
        "{{ (other ~ '\n|||b').split('\n')|join }}",
        "{{ (other ~ ' |||b')|replace(' ', '') }}",
        "{{ 'one|||b' if '|||' in text else 'c' }}",
        "{{ ['a', 'one|||b'][1] }}{{ {'k': ''}.k }}",
        "{{ none or 'one|||b' }}",
        "{{ (other if other == 'one') ~ ''|default('|||b', true) }}",
        "{% set said = other ~ '|||b' %}{{ said }}",
        "{% set said %}{{ other }}|||b{% endset %}{{ said|lower }}",
        "{% for part in [other, '|||', 'b'] %}{{ part }}{% endfor %}",
        "{% filter lower %}{{ other }}|||B{% endfilter %}",
        "{% macro said(x) %}{{ x }}|||b{% endmacro %}{{ said(other) }}",
    ],
)
def test_what_is_printed_parts_the_prompt(source: str) -> None:
    assert render(source) == ("one", "b")


@pytest.mark.parametrize(
    "source",
    [
        "{% set bars = '|||' %}{{ other }}{{ bars }}{{ text.split(bars)[0] }}",
        "{% set bars %}|||{% endset %}{{ other ~ bars }}{{ bars in text }}",
        "{% set bars = '|||' %}{% set same = bars %}{{ same }}",
        "{% set n = namespace(s='|||') %}{{ n.s }}",
        "{% set n = namespace() %}{% set n.s = '|||' %}{{ n.s }}",
        "{% macro parts(bars) %}{{ text.split(bars) }}{% endmacro %}{{ parts('|||') }}",
        "{{ words|map('replace', '|||', ',')|join }}",
        "{{ 'a ||| b'.split('|||')[0] }}",
        "{{ (other ~ '|||' ~ text)|replace('|||', ',') }}",
        "{{ (words|join('|||')).replace(other, '') }}",
        "{% filter replace('|||', ',') %}a ||| b{% endfilter %}",
        "{{ words.append('|||') or '' }}{{ words|join }}",
        "{% for bars in ['|||'] %}{{ bars }}{{ bars in text }}{% endfor %}",
    ],
)
def test_what_may_be_either_is_refused(source: str) -> None:
    with pytest.raises(
        UserError, match=r'it cannot be told whether a "\|\|\|" parts the prompt or is looked for; write'
    ):
        render("{{ other }}\n" + source + " ||| x")
    with pytest.raises(UserError, match="line 2: it cannot be told"):
        render("{{ other }}\n" + source + " ||| x")
