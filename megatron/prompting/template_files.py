"""Reads promptsource's template files: FOLDER/DATA_SET[/CONFIGURATION]/templates.yaml, one data set a file.

    dataset: super_glue
    subset: copa                      left out where the data set has no configurations
    templates:
      0edd8660-...: !Template
        id: 0edd8660-...
        name: exercise
        jinja: "... ||| ..."
        answer_choices: "{{choice1}} ||| {{choice2}}"     or null
        reference: ""
        metadata: !TemplateMetadata {original_task: true, choices_in_prompt: true, metrics: [Accuracy]}

Templates of a project's own are the same; the id may be any text that no other template of the file has. The two tags
make plain dicts, every other one is refused: nothing that a file names is ever imported or called. A key that comes
twice is refused, and so are aliases that stand for more than a million characters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron.basics.errors import UserError, nearest
from megatron.prompting.strict_yaml import read_yaml
from megatron.prompting.template import SEPARATOR, Template, short_repr

FILE_NAME = "templates.yaml"
TEMPLATE_TAG, METADATA_TAG = "!Template", "!TemplateMetadata"
LONGEST_NAME = 200  # characters; an error has it. promptsource's longest has 75


def data_sets_of(folder: Path) -> tuple[str, ...]:
    """The data sets that a folder has templates of, e.g. "super_glue/copa", in alphabetical order.

    Raises UserError where there are none.
    """
    found = sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob(FILE_NAME))
    if not found:
        raise UserError(
            f"{folder} has no templates: it needs DATA_SET/{FILE_NAME} or DATA_SET/CONFIGURATION/{FILE_NAME}."
        )
    return tuple(found)


def read_templates(folder: Path, data_set: str) -> tuple[Template, ...]:
    """The templates of one data set in the order of their names.

    Raises UserError with a sentence for each fault: no such data set, not YAML, a tag or key that does not belong,
    a key twice, another data set than the folder's, a template without "|||", Jinja that does not parse or asks for
    what templates may not have.
    """
    path = folder / data_set / FILE_NAME
    if not path.is_file():
        known = data_sets_of(folder)
        raise UserError(
            f"{folder} has no templates of {data_set};{nearest(data_set, known)} It has {len(known)} data sets."
        )
    content = read_yaml(path, "templates", (TEMPLATE_TAG, METADATA_TAG))
    if not isinstance(content, dict) or not isinstance(content.get("templates"), dict):
        raise UserError(f"{path} has no mapping named templates; see promptsource's files for its form.")
    _check_data_set(path, content, data_set)
    faults: list[str] = []
    templates = []
    for key, entry in content["templates"].items():
        found = _template_of(entry, str(key), data_set)
        if isinstance(found, Template):
            templates.append(found)
            faults += [f"{path}: {found.title}{fault}" for fault in _faults_of(found)]
        else:
            faults.append(f"{path}: {found}")
    names = [template.name for template in templates]
    faults += [
        f"{path}: the name {name!r} is given twice." for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if faults:
        raise UserError(*faults)
    return tuple(sorted(templates, key=lambda template: template.name))


def _check_data_set(path: Path, content: dict[str, Any], data_set: str) -> None:
    """The file's own word on what it belongs to; promptsource writes "None" for some that have no configuration."""
    said = [content[key] for key in ("dataset", "subset") if content.get(key) not in (None, "None")]
    name = "/".join(part if isinstance(part, str) else short_repr(part) for part in said)
    if name != data_set:
        raise UserError(f"{path} says that it belongs to {name[:100] or 'no data set'}; move it to that folder.")


def _template_of(entry: Any, key: str, data_set: str) -> Template | str:
    """The template of one entry, or the fault of the entry."""
    if not isinstance(entry, dict) or not isinstance(entry.get("metadata"), dict):
        return f"the template {key[:60]} is not a {TEMPLATE_TAG} with {METADATA_TAG} as its metadata."
    metadata = entry["metadata"]
    for name in ("name", "jinja", "id"):
        if not isinstance(entry.get(name), str) or not entry[name]:
            return f"the {name} of the template {short_repr(entry.get('name') or key)} is not text; write it in quotes."
    title = short_repr(entry["name"])
    if len(entry["name"]) > LONGEST_NAME:
        return f"the name of the template {title} has more than {LONGEST_NAME} characters."
    if entry["id"] != key:
        return f"the template {title} stands under {key[:60]}, but its id is {entry['id'][:60]}; make them equal."
    for name in ("answer_choices", "reference"):
        if not isinstance(entry.get(name), str | None):
            return f"{name} of the template {title} is not text; write it in quotes, or null for none."
    for name in ("original_task", "choices_in_prompt"):
        if not isinstance(metadata.get(name), bool | None):
            return f"{name} of the template {title} is neither true nor false."
    metrics = metadata.get("metrics") or []
    if not isinstance(metrics, list) or not all(isinstance(metric, str) for metric in metrics):
        return f"metrics of the template {title} is not a list of names."
    return Template(
        data_set=data_set,
        name=entry["name"],
        jinja=entry["jinja"],
        answer_choices=entry.get("answer_choices"),
        is_original_task=bool(metadata.get("original_task")),
        choices_in_prompt=bool(metadata.get("choices_in_prompt")),
        metrics=tuple(metrics),
        id=entry["id"],
        reference=entry.get("reference") or "",
    )


def _faults_of(template: Template) -> list[str]:
    """What keeps a template from ever rendering, each to be read after its title."""
    from megatron.prompting.sandbox import fault_of_source  # Jinja takes a while to import

    sources = [("jinja", template.jinja), ("answer_choices", template.answer_choices or "")]
    found = [(name, fault_of_source(source)) for name, source in sources]
    faults = [f": its {name}, {fault}." for name, fault in found if fault is not None]
    if SEPARATOR not in template.jinja:
        faults.append(f' has no "{SEPARATOR}" between inputs and target; write one.')
    return faults
