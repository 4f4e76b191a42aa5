"""Marks the separators of a template: each "|||" that it prints becomes a mark that no example has.

Only a "|||" that the template itself writes parts inputs from target; one in an example, or one that comes about where
an example's bar stands beside the template's, is text. A "|||" in quotes may also be what a template looks for:
`text.split("|||")`, `"|||" in text`, `row["a|||b"]`. That one stays as it is. Where a "|||" may be either, e.g. in a
variable that is printed here and compared there, the template is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import Enum

from jinja2 import TemplateSyntaxError, nodes

from megatron.prompting.template import SEPARATOR

MARKED_BAR = "\ufdd0"  # a character that Unicode keeps out of texts
MARKED_SEPARATOR = MARKED_BAR * len(SEPARATOR)  # lengths and slices stay what they were

ALL = frozenset[int | str](range(1000))  # places of arguments, more than a call has
# Arguments that come out as they are, by place or name; others are looked for, or name something.
PRINTED_BY_FILTERS: dict[str, frozenset[int | str]] = {
    "default": frozenset((0, "default_value")),
    "d": frozenset((0, "default_value")),
    "format": ALL,
    "join": frozenset((0, "d")),
    "replace": frozenset((1, "new")),
    "truncate": frozenset((2, "end")),
}
PRINTED_BY_METHODS: dict[str, frozenset[int | str]] = {
    "join": ALL,
    "replace": frozenset((1,)),
    "get": frozenset((1,)),
    "pop": frozenset((1,)),
}
# Methods that look for their arguments in a text, and give parts of it.
GIVING_PARTS = frozenset(
    (
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "strip",
    )
)
GIVING_NUMBERS = frozenset(("count", "endswith", "find", "index", "rfind", "startswith"))
FILTERS_GIVING_PARTS = frozenset(("map", "reject", "rejectattr", "replace", "select", "selectattr", "trim"))


class Use(Enum):
    """What becomes of a value."""

    PRINTED = 0
    SOUGHT = 1  # looked for, compared, or only asked whether it is there
    UNTOLD = 2


def mark_separators(tree: nodes.Template) -> None:
    """Mark the separators of a template, in place; raises TemplateSyntaxError where one cannot be told from text."""
    first = _Separators(None)
    first.visit(tree, Use.PRINTED)
    _Separators(first.uses).visit(tree, Use.PRINTED)


class _Separators:
    """Goes through a tree: the first time to see how variables are used, then to mark what they are given, too."""

    def __init__(self, known: dict[str, set[Use]] | None) -> None:
        self.uses: defaultdict[str, set[Use]] = defaultdict(set)
        self._known = known

    def visit(self, node: nodes.Node, use: Use) -> None:
        """Mark what is below a node whose value has a use."""
        if isinstance(node, nodes.Const | nodes.TemplateData):
            self._mark(node, use)
        elif isinstance(node, nodes.Name):
            self.uses[node.name].add(use)
        for part, its_use in self._parts(node, use):
            self.visit(part, its_use)

    def _mark(self, node: nodes.Const | nodes.TemplateData, use: Use) -> None:
        field = "data" if isinstance(node, nodes.TemplateData) else "value"
        text = getattr(node, field)
        if self._known is None or not isinstance(text, str) or SEPARATOR not in text:
            return
        if use is Use.UNTOLD:
            raise TemplateSyntaxError(
                f'it cannot be told whether a "{SEPARATOR}" parts the prompt or is looked for; write it where it is '
                "printed or compared",
                node.lineno,
            )
        if use is Use.PRINTED:
            setattr(node, field, text.replace(SEPARATOR, MARKED_SEPARATOR))

    def _parts(self, node: nodes.Node, use: Use) -> Iterable[tuple[nodes.Node, Use]]:
        """The nodes right below a node, each with its use."""
        match node:
            case nodes.Compare() | nodes.Test() | nodes.Not() | nodes.Slice():
                return _each(node.iter_child_nodes(), Use.SOUGHT)
            case nodes.CondExpr() | nodes.If():
                return [(node.test, Use.SOUGHT), *_each(node.iter_child_nodes(exclude=("test",)), use)]
            case nodes.Pair():
                return [(node.key, Use.SOUGHT), (node.value, use)]
            case nodes.Getitem():
                return [(node.node, use), (node.arg, Use.SOUGHT)]
            case nodes.Filter():
                below = [] if node.node is None else [(node.node, _use_of_filtered(node, use))]
                return [*below, *_arguments_of_filter(node, use)]
            case nodes.Call():
                return _parts_of_call(node, use)
            case nodes.Assign():
                return [(node.node, self._use_of_targets(node.target))]
            case nodes.With():
                values = zip(node.values, map(self._use_of_targets, node.targets), strict=True)
                return [*values, *_each(node.body, use)]
            case nodes.For():
                tests = [] if node.test is None else [(node.test, Use.SOUGHT)]
                bodies = _each([*node.body, *node.else_], use)
                return [(node.iter, self._use_of_targets(node.target)), *tests, *bodies]
            case nodes.FilterBlock():
                return [(node.filter, use), *_each(node.body, _use_below(node.filter, use))]
            case nodes.AssignBlock():
                use = self._use_of_targets(node.target)
                filters = [] if node.filter is None else [(node.filter, use)]
                return [*filters, *_each(node.body, _use_below(node.filter, use))]
            case nodes.Macro() | nodes.CallBlock():
                others = node.iter_child_nodes(exclude=("body", "args"))
                return [*_each(others, Use.UNTOLD), *_each(node.body, use)]
        return _each(node.iter_child_nodes(), use)

    def _use_of_targets(self, target: nodes.Node) -> Use:
        """What becomes of a value that is given to names; untold the first time, and for parts of a namespace."""
        if self._known is None or isinstance(target, nodes.NSRef):
            return Use.UNTOLD
        names = [target, *target.find_all(nodes.Name)]
        uses = {use for name in names if isinstance(name, nodes.Name) for use in self._known.get(name.name, ())}
        if any(True for _ in target.find_all(nodes.NSRef)) or len(uses) > 1:
            return Use.UNTOLD
        return uses.pop() if uses else Use.PRINTED


def _each(parts: Iterable[nodes.Node], use: Use) -> Iterator[tuple[nodes.Node, Use]]:
    return ((part, use) for part in parts)


def _parts_of_call(node: nodes.Call, use: Use) -> list[tuple[nodes.Node, Use]]:
    """Of a method; what functions, macros, and methods that change a list do with their arguments is not told."""
    arguments = [*node.args, *(keyword.value for keyword in node.kwargs)]
    others = [part for part in (node.dyn_args, node.dyn_kwargs) if part is not None]
    if not isinstance(node.node, nodes.Getattr):
        return [*_each([node.node, *arguments, *others], Use.UNTOLD)]
    name, below = node.node.attr, node.node.node
    if not arguments and not others:
        return [(below, use)]
    if name in PRINTED_BY_METHODS or name in GIVING_PARTS or name in GIVING_NUMBERS:
        printed = PRINTED_BY_METHODS.get(name, frozenset())
        told = [(part, use if place in printed else Use.SOUGHT) for place, part in enumerate(arguments)]
        if name in GIVING_NUMBERS:
            use = Use.SOUGHT
        elif name in GIVING_PARTS:
            use = _use_of_searched([part for part, its_use in told if its_use is Use.SOUGHT], use)
        return [(below, use), *told, *_each(others, Use.UNTOLD)]
    return [*_each([below, *arguments, *others], Use.UNTOLD)]


def _arguments_of_filter(node: nodes.Filter, use: Use) -> Iterator[tuple[nodes.Node, Use]]:
    printed = PRINTED_BY_FILTERS.get(node.name, frozenset())
    others = Use.UNTOLD if node.name == "map" else Use.SOUGHT
    for place, part in enumerate(node.args):
        yield part, use if place in printed else others
    for keyword in node.kwargs:
        is_printed = keyword.key in printed or node.name == "format"
        yield keyword.value, Use.SOUGHT if keyword.key == "attribute" else use if is_printed else others
    for dynamic in (node.dyn_args, node.dyn_kwargs):
        if dynamic is not None:
            yield dynamic, Use.UNTOLD


def _use_of_filtered(node: nodes.Filter, use: Use) -> Use:
    """Of what a filter is given, from the use of what it makes."""
    if node.name not in FILTERS_GIVING_PARTS:
        return use
    printed = PRINTED_BY_FILTERS.get(node.name, frozenset())
    sought = [part for place, part in enumerate(node.args) if place not in printed]
    sought += [keyword.value for keyword in node.kwargs if keyword.key not in printed]
    return _use_of_searched(sought, use)


def _use_below(filters: nodes.Expr | None, use: Use) -> Use:
    """Of the text of a block that goes through filters."""
    while isinstance(filters, nodes.Filter):
        use = _use_of_filtered(filters, use)
        filters = filters.node
    return use


def _use_of_searched(sought: list[nodes.Expr], use: Use) -> Use:
    """Of a text in which something is looked for: marks would hide its bars from that."""
    cannot_match = all(isinstance(part, nodes.Const) and "|" not in str(part.value) for part in sought)
    return use if cannot_match or use is not Use.PRINTED else Use.UNTOLD
