"""Template files: what is read, and what is refused with its file and name."""

import os
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from megatron.basics.errors import UserError
from megatron.prompting.renderer import Renderer
from megatron.prompting.template_files import data_sets_of, read_templates

PROMPTSOURCE = os.environ.get("PROMPTSOURCE_TEMPLATES")  # its folder promptsource/templates; see CONTRIBUTING.md
ENTRY = """
  one: !Template
    answer_choices: "{{ a }} ||| {{ b }}"
    id: one
    jinja: "Which? {{ question }} ||| {{ answer_choices[label] }}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      metrics: [Accuracy, Other]
      original_task: true
    name: first choice
    reference: A paper
"""
HEAD = "dataset: glue\nsubset: which\ntemplates:"


def written(folder: Path, text: str, data_set: str = "glue/which") -> Path:
    (folder / data_set).mkdir(parents=True, exist_ok=True)
    (folder / data_set / "templates.yaml").write_text(text, encoding="utf-8")
    return folder


def faults_of(folder: Path, text: str) -> str:
    with pytest.raises(UserError) as fault:
        read_templates(written(folder, text), "glue/which")
    return str(fault.value)


def test_a_template_is_read_with_all_that_the_file_says(tmp_path: Path) -> None:
    second = ENTRY.replace("one", "two").replace("first choice", "a later name").replace("true", "null")
    templates = read_templates(written(tmp_path, HEAD + ENTRY + second), "glue/which")
    assert [template.name for template in templates] == ["a later name", "first choice"]
    template = templates[1]
    assert (template.data_set, template.id, template.reference) == ("glue/which", "one", "A paper")
    assert (template.metrics, template.is_original_task, template.choices_in_prompt) == (
        ("Accuracy", "Other"),
        True,
        False,
    )
    assert template.answer_choices == "{{ a }} ||| {{ b }}" and not templates[0].is_original_task


def test_the_folders_are_the_data_sets(tmp_path: Path) -> None:
    written(tmp_path, HEAD + ENTRY)
    written(tmp_path, "dataset: someone/imdb\nsubset: None\ntemplates:" + ENTRY, "someone/imdb")
    assert data_sets_of(tmp_path) == ("glue/which", "someone/imdb")
    assert read_templates(tmp_path, "someone/imdb")[0].data_set == "someone/imdb"
    with pytest.raises(UserError, match="no templates of glue/wich; did you mean glue/which"):
        read_templates(tmp_path, "glue/wich")
    with pytest.raises(UserError, match="has no templates"):
        data_sets_of(tmp_path / "glue" / "which" / "deeper")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("templates:", "templates: [", r"line \d+ of .*templates.yaml cannot be read"),
        ("!TemplateMetadata", "!Other", "line 8 of .*could not determine a constructor for the tag '!Other'"),
        ("!Template\n", "!!python/object/apply:os.system\n", "could not determine a constructor"),
        ("!Template\n", "!!python/name:os.system\n", "could not determine a constructor"),
        ("subset: which", "subset: other", "belongs to glue/other; move it"),
        (" ||| {{ answer_choices[label] }}", "", "template 'first choice' of glue/which has no \"|||\""),
        ("{{ question }}", "{{ question }", "'first choice' of glue/which: its jinja, line 1: unexpected '}'"),
        ("{{ question }}", "{{ question|nosuch }}", "its jinja, line 1: No filter named 'nosuch'"),
        ("{{ question }}", "\\n{% include 'x' %}", "its jinja, line 2: include is not for templates"),
        ("{{ a }} ", "{% if a %} ", "its answer_choices, line 1: Unexpected end of template"),
        ("{{ question }}", "{{ " + 5000 * "9" + " }}", "its jinja, line 1: it is too deep or too long to compile"),
        (
            "{{ question }}",
            30 * "{% for a in b %}" + 30 * "{% endfor %}",
            "its jinja, line 1: it is too deep or too long",
        ),
        ("{{ question }}", "{{ " + 5000 * "(" + "1" + 5000 * ")" + " }}", "its jinja, line 1: it is too deep"),
        ("name: first choice", "name: 2020-01-01", "the name of the template .* is not text"),
        ("id: one", "id: other", "stands under one, but its id is other"),
        ("original_task: true", "original_task: maybe", "original_task of the template 'first choice' is neither"),
        ("metrics: [Accuracy, Other]", "metrics: Accuracy", "metrics of the template 'first choice' is not a list"),
        ('answer_choices: "{{ a }} ||| {{ b }}"', "answer_choices: yes", "answer_choices of the template"),
        ("reference: A paper", "reference: [a, b]", "reference of the template 'first choice' is not text"),
        ("name: first choice", f"name: {'long' * 99}", r"the name of the template 'long.*\.\.\.' has more than 200"),
        ("name: first choice", f"name: 0x{4000 * 'f'}", "line 12 of .*: a number has more than 40 characters"),
        ("  one:", f"  {'1' + 9999 * ':1'}:", "line 4 of .*: a number has more than 40 characters"),
        ("id: one", "id: one\n    id: two", r"line 7 of .* cannot be read as templates: it gives 'id' twice"),
        ("subset: which", "subset: which\nsubset: which", "line 3 of .*: it gives 'subset' twice"),
        ("subset: which", "subset: which\n[a]: b", "line 3 of .*: a key is not a text"),
        ("reference: A paper", "reference: *other", "line 13 of .*: the alias other stands for nothing before it"),
        ("reference: A paper", "reference: &own [*own]", "the alias own stands for nothing before it"),
        ("reference: A paper", "reference: " + 10**5 * "[", "it has more than 32 lists or mappings in one another"),
        ("reference: A paper", "reference: " + 10**6 * "x", "cannot be read as templates: it has more than 1,000,000"),
        ("  one:", "  - one:", "has no mapping named templates"),
    ],
)
def test_a_fault_names_file_and_template(tmp_path: Path, old: str, new: str, fault: str) -> None:
    text = HEAD + ENTRY
    assert old in text
    if new == "  - one:":
        text = HEAD + "\n  - one\n"
    with pytest.raises(UserError, match=fault) as told:
        read_templates(written(tmp_path, text.replace(old, new)), "glue/which")
    assert "templates.yaml" in str(told.value)


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    second = ENTRY.replace("one", "two").replace("|||", "|")
    told = faults_of(tmp_path, HEAD + ENTRY.replace("{{ question }}", "{{ question") + second)
    assert "its jinja, line 1: " in told and "has no" in told and "the name 'first choice' is given twice" in told


def test_what_a_file_says_is_never_constructed(tmp_path: Path) -> None:
    """YAML's own way to run code; the loader must not even be a subclass of one that knows it."""
    target = tmp_path / "written"
    attack = f"templates: !!python/object/apply:os.system ['touch {target}']"
    assert "could not determine a constructor" in faults_of(tmp_path, attack)
    assert not target.exists()
    with pytest.raises(yaml.constructor.ConstructorError):  # and the tags are known to nobody else
        yaml.safe_load(HEAD + ENTRY)


def test_what_a_file_says_twice_is_not_lost(tmp_path: Path) -> None:
    """Two templates under one key: the last one would be all that is left."""
    told = faults_of(tmp_path, HEAD + ENTRY + ENTRY.replace("first choice", "another"))
    assert "line 15 of " in told and told.endswith("it gives 'one' twice; mend the file.")


def test_aliases_are_counted_by_what_they_stand_for(tmp_path: Path) -> None:
    """promptsource's file of SQuAD 2 has two, each of one template's metadata."""
    shared = ENTRY.replace("!TemplateMetadata", "&id001 !TemplateMetadata")
    other = ENTRY.replace("one", "two").replace("first choice", "other")
    head, tail = other.split("    metadata:")[0], other[other.index("    name:") :]
    templates = read_templates(written(tmp_path, HEAD + shared + head + "    metadata: *id001\n" + tail), "glue/which")
    assert [template.metrics for template in templates] == [("Accuracy", "Other")] * 2
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    for last in ("dataset: *a9", "templates: {one: *a9}", "<<: *a9"):
        begun = time.process_time()
        assert "with its aliases it has more than 1,000,000 characters" in faults_of(tmp_path, bomb + last)
        assert time.process_time() - begun < 1


@pytest.mark.slow
@pytest.mark.skipif(PROMPTSOURCE is None, reason="PROMPTSOURCE_TEMPLATES names no folder; see CONTRIBUTING.md")
def test_every_template_of_promptsource_is_read_and_compiles() -> None:
    folder = Path(PROMPTSOURCE or "")
    names = data_sets_of(folder)
    templates = [template for name in names for template in read_templates(folder, name)]
    facts = Counter(
        {
            "files": len(names),
            "templates": len(templates),
            "with choices": sum(template.answer_choices is not None for template in templates),
            "original task": sum(template.is_original_task for template in templates),
        }
    )
    assert facts == {"files": 279, "templates": 2085, "with choices": 1145, "original task": 1535}
    for template in templates:
        Renderer(template)
