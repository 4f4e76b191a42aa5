"""A stranger's template reads its example and nothing else, and ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron.basics.errors import UserError
from megatron.prompting.renderer import Renderer
from megatron.prompting.rendering import render_examples
from megatron.prompting.template import Template

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = {"text": "a text", "words": ["a", "b"], "nested": {"key": "value"}, "number": 3, "blob": b"bytes"}

REACHES_OUT = {
    "import os": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class of a column": "{{ text.__class__ }}",
    "class by item": "{{ text['__class__'] }}",
    "attr filter": "{{ text|attr('__class__') }}",
    "format string": "{{ '{0.__class__}'.format(text) }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': text}) }}",
    "globals of a function": "{{ range.__globals__ }}",
    "globals of a macro": "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "module of a function": "{{ zip.__self__ }}",
    "builtins by namespace": "{{ namespace.__init__.__globals__['os'].system('true') }}",
    "inside of a namespace": "{% set n = namespace(a=1) %}{{ n._Namespace__attrs }}",
    "cycler": "{{ cycler.__init__.__globals__.os }}",
    "joiner": "{{ joiner.__init__.__globals__.os }}",
    "lipsum": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "self": "{{ self._TemplateReference__context }}",
    "frame of a generator": "{{ (words|map('upper')).gi_frame }}",
    "attribute in map": "{{ words|map(attribute='__class__')|list }}",
    "inside of a loop": "{% for w in words %}{{ loop._iterator }}{% endfor %}",
    "bound method": "{{ text.upper.__self__ }}",
    "function of a partial": "{{ text.upper.func }}",
    "calls a type": "{{ dict.__base__.__subclasses__() }}",
    "calls a column": "{{ text() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "from import": "{% from 'os' import system %}",
    "extends": "{% extends 'base' %}",
    "block": "{% block b %}{% endblock %}",
    "autoescape": "{% autoescape true %}{{ text }}{% endautoescape %}",
    "address of a method": "{{ text.join }}",
    "address in a list": "{{ [text.join] }}",
    "address of what a filter makes": "{{ words|map('upper') }}",
    "address as a text": "{{ range|string|length }}",
    "address in upper case": "{{ [zip]|map('upper')|list }}",
    "address in a join": "{{ [namespace(a=1)]|join }}",
    "address in a format": "{{ '%(a)s' % {'a': text.upper} }}",
    "address by tilde": "{{ text ~ dict }}",
    "unknown filter": "{{ text|pprint }}",
}

WITHOUT_END = {
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loop with text": "{% for a in range(99999) %}" + "x" * 1000 + "{% endfor %}",
    "recursive loop": "{% for a in words recursive %}{{ loop(words) }}{% endfor %}",
    "macro of itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macros that double": "".join(
        f"{{% macro m{i + 1}() %}}{{{{ m{i}() }}}}{{{{ m{i}() }}}}{{% endmacro %}}" for i in range(40)
    ).replace("{{ m0() }}", "x")
    + "{{ m40() }}",
    "a list that grows in its loop": "{% set l = [1] %}{% for a in l %}{{ l.append(1) or '' }}{% endfor %}",
    "doubling by plus": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "doubling by tilde": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "doubling of lists": "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "doubling by join": "{% set n = namespace(s='ab') %}"
    "{% for i in range(60) %}{% set n.s = [n.s, n.s]|join %}{% endfor %}",
    "doubling by set blocks": "{% set s %}xx{% endset %}" + "{% set s %}{{ s }}{{ s }}{% endset %}" * 60,
    "times": "{{ 'x' * 10**10 }}",
    "list times": "{{ ([text] * 10**10)|length }}",
    "power": "{{ 9**9**9**9**9**9 }}",
    "squares": "{% set n = namespace(x=10) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
    "percent": "{{ '%9999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (9999999999, 1) }}",
    "format filter": "{{ '%9999999999d'|format(1) }}",
    "ljust": "{{ text.ljust(10**10) }}",
    "center": "{{ text|center(10**10) }}",
    "indent": "{{ text|indent(10**10) }}",
    "zfill": "{{ text.zfill(10**10) }}",
    "expandtabs": "{{ text.expandtabs(10**10) }}",
    "batch": "{{ words|batch(10**10, 'x')|list }}",
    "round": "{{ 1.5|round(10**9, 'floor') }}",
    "replace in method": "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
    "replace in filter": "{{ ('a' * 10**6)|replace('a', 'b' * 10**6) }}",
    "join in method": "{{ ('a' * 10**6).join(['b'] * 10**6) }}",
    "a list that holds itself twice": "{% set n = namespace(s=[1]) %}{% for i in range(60) %}"
    "{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
    "the same as a dict": "{% set n = namespace(s={}) %}{% for i in range(60) %}"
    "{% set n.s = {'a': n.s, 'b': n.s} %}{% endfor %}{{ n.s|string|length }}",
    "takes work back": "{% set n = namespace(s='ab') %}{% for i in range(60) %}"
    "{% set _ = words|map('turns of a loop', -10**15)|list %}{% set n.s = n.s + n.s %}{% endfor %}",
    "lists of pairs": "{% for i in range(9999) %}{{ zip(range(99999), range(99999))|list|length }}{% endfor %}",
    "dicts of pairs": "{% for i in range(9999) %}{{ dict(zip(range(99999), range(99999)))|length }}{% endfor %}",
    "methods of a long text": "{% set t = 'x' * 10**6 %}{% for i in range(99999) %}{{ t.upper()|length }}{% endfor %}",
    "constants in a loop": "{% for a in range(99999) %}{{ '" + "x" * 1000 + "' }}{% endfor %}",
    "loops over literals": "".join(f"{{% for a{n} in [" + "1," * 99 + "] %}" for n in range(9)) + "{% endfor %}" * 9,
    "one field again and again": "{{ ('%(a)s' * 9999) % {'a': 'x' * 10**6} }}",
    "the same in the filter": "{{ ('%(a)s' * 9999)|format(a='x' * 10**6) }}",
    "views": "{% set n = namespace(s={'a': 'x' * 1000}) %}{% for i in range(60) %}"
    "{% set n.s = {'a': n.s.values(), 'b': n.s.values()} %}{% endfor %}{{ n.s.items() }}",
    "a namespace as a text": "{% set n = namespace(s='x' * 10**6) %}{{ [n] * 999 }}",
    "long numbers": "{% set x = 9**64 * 9**64 * 9**64 * 9**64 %}{{ [x * x * x] * 99999 }}",
    "bytes times": "{{ blob * 10**10 }}",
    "bytes in a list": "{{ [blob * 10**6] * 1000 }}",
    "filters over filters": "{% for i in range(9999) %}{{ range(99999)|map('string')|list|length }}{% endfor %}",
}
ENDS_IN_PYTHON = (  # compares two nested lists that share their parts: no step of the template's own
    "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}"
    "{% endfor %}{{ n.a == n.b }}"
)


def template(source: str, answer_choices: str | None = None) -> Template:
    return Template("some/set", "wicked", source + " ||| y", answer_choices, True, False, (), "id", "")


@pytest.mark.parametrize("source", [*REACHES_OUT.values(), *WITHOUT_END.values()], ids=[*REACHES_OUT, *WITHOUT_END])
def test_a_hostile_template_is_stopped_by_name(source: str) -> None:
    begun = time.process_time()
    with pytest.raises(UserError, match="template 'wicked' of some/set"):
        Renderer(template(source)).render(EXAMPLE, 0)
    assert time.process_time() - begun < 10


def test_so_are_hostile_answer_choices() -> None:
    with pytest.raises(UserError, match="template 'wicked' of some/set"):
        Renderer(template("{{ text }}", WITHOUT_END["nested loops"])).render(EXAMPLE, 0)


def test_a_template_cannot_change_the_example_for_the_next_one() -> None:
    changing = "{{ words.append('c') or '' }}{{ nested.update({'key': 0}) or '' }}{{ words|join }}"
    rendered = Renderer(template(changing)).render(EXAMPLE, 0)
    assert rendered is not None and rendered.inputs == "abc"
    assert EXAMPLE["words"] == ["a", "b"] and EXAMPLE["nested"] == {"key": "value"}


def test_what_no_step_counts_is_stopped_by_its_seconds() -> None:
    """And nobody else's timers, signals or children are touched."""
    handlers = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGCHLD, signal.SIGINT)]
    fine = template("{{ text }}")
    with pytest.raises(UserError, match=r"'wicked' of some/set takes more than 0\.5 seconds on example 0"):
        list(render_examples([fine, template(ENDS_IN_PYTHON)], [EXAMPLE], seconds=0.5))
    assert [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGCHLD, signal.SIGINT)] == handlers
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


HOARDING = """
from megatron.prompting.rendering import render_examples
from megatron.prompting.template import Template
wicked = Template("some/set", "wicked", "{% set x = 'x' * 9000000 %} ||| y", None, True, False, (), "id", "")
print(len(list(render_examples([wicked], [{}], memory=200 * 2**20))))
list(render_examples([wicked], [{}], memory=2 * 2**20))
"""


def test_memory_is_bounded() -> None:
    """A size that a WorkLimit lets pass may still be more than the machine has.

    In a process of its own: what this one has freed before would be taken first.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOARDING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "1\n"
    assert "UserError: template 'wicked' of some/set fails on example 0: MemoryError" in done.stderr
