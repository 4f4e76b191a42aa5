"""Data sets that share examples: what is held out under one name is not trained on under another.

Copies on the hub carry their owner's name (`Rowan/hellaswag`), benchmarks take over one another's tasks, and the
configurations of a data set may be parts or versions of one collection.
"""

from __future__ import annotations

# Names that share examples, without owners; one without a configuration stands for all configurations.
FAMILIES = (
    ("super_glue/rte", "glue/rte", "rte"),
    ("super_glue/cb", "cb"),
    ("super_glue/wic", "wic"),
    ("super_glue/copa", "copa", "balanced-copa"),
    # Winograd schemas: as links between words, as entailments, as questions.
    ("super_glue/wsc.fixed", "super_glue/wsc", "wsc", "wsc273", "winograd_wsc", "glue/wnli", "wnli", "mwsc"),
    ("winogrande", "winogrande_xl"),
    ("hellaswag",),
    ("story_cloze",),
    ("anli",),
    ("super_glue/boolq", "boolq"),
    ("commonsense_qa", "cos_e"),  # CoS-E has CommonsenseQA's questions with explanations
    ("squad", "squad_v2"),
)
_BETWEEN = str.maketrans("/.-", "___")  # `super_glue_copa` is what copies of `super_glue/copa` are called
_FAMILY_OF = {name.translate(_BETWEEN): family[0] for family in FAMILIES for name in family}
_IN_COLLECTIONS = [(name.split("/")[0], family[0]) for family in FAMILIES for name in family if "/" in name]
_NO_CONFIGURATION = (None, "plain_text", "default", "none")


def share_examples(one: tuple[str, str | None], other: tuple[str, str | None]) -> bool:
    """Whether two data sets, each (path, configuration), have examples in common by all that their names tell.

    A copy is known by its name where the other one has no owner, or the same. One without a configuration may be all of
    its collection.
    """
    one, other = _plain(one), _plain(other)
    if _families_of(one) & _families_of(other):
        return True
    (path, configuration), (other_path, other_configuration) = one, other
    if configuration != other_configuration and None not in (configuration, other_configuration):
        return False
    paths = path.split("/"), other_path.split("/")
    return path == other_path or (min(map(len, paths)) == 1 and paths[0][-1] == paths[1][-1])


def _plain(data_set: tuple[str, str | None]) -> tuple[str, str | None]:
    path, configuration = data_set
    return path.lower(), None if configuration in _NO_CONFIGURATION else configuration


def _families_of(data_set: tuple[str, str | None]) -> set[str]:
    """By the end of the name, so that it may begin with owners; by the path alone; of a collection all its parts'."""
    path, configuration = data_set
    for name in [path] if configuration is None else [f"{path}/{configuration}", path]:
        parts = name.lower().split("/")
        for begin in range(len(parts)):
            family = _FAMILY_OF.get("_".join(parts[begin:]).translate(_BETWEEN))
            if family is not None:
                return {family}
    if configuration is not None:
        return set()
    return {family for collection, family in _IN_COLLECTIONS if collection == path.split("/")[-1]}
