"""Rewrites a template before it is compiled: what Jinja's sandbox lets it do unseen is counted, or refused.

It also marks the separators. Only a "|||" that the template itself writes parts inputs from target; one in an example,
or one that comes about where an example's bar stands beside the template's, is text. So each "|||" of the template
becomes a mark that no example has.
"""

from __future__ import annotations

from typing import Any, NoReturn

from jinja2 import TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

from megatron.prompting.template import SEPARATOR
from megatron.prompting.work_limit import STEP

TURNS = "turns of a loop"  # the name of a filter that no template can write behind a bar
MARKED_BAR = "\ufdd0"  # a character that Unicode keeps out of texts
MARKED_SEPARATOR = MARKED_BAR * len(SEPARATOR)  # lengths and slices stay what they were
NOT_OFFERED: dict[type[nodes.Node], str] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "block",
}


class Guard(NodeTransformer):
    """Visits the tree of a template; raises TemplateSyntaxError for what is not for templates."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        """Charge the turns by what they write."""
        if node.recursive:
            _refuse(node, "a recursive loop is not for templates")
        constants = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        each = nodes.Const(STEP + constants, lineno=node.lineno)
        node = self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, TURNS, [each], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        """`a ~ b` is [a, b]|join."""
        node = self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes), "join", [], [], None, None, lineno=node.lineno)

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.TemplateData:
        """Mark the separators between expressions."""
        node.data = node.data.replace(SEPARATOR, MARKED_SEPARATOR)
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Const:
        """Mark the separators inside of an expression, e.g. of `choices|join("|||")`."""
        if isinstance(node.value, str):
            node.value = node.value.replace(SEPARATOR, MARKED_SEPARATOR)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Getitem:
        """`row["a|||b"]` names a column."""
        if not isinstance(node.arg, nodes.Const):
            return self.generic_visit(node)
        node.node = self.visit(node.node)
        return node

    def visit_ScopedEvalContextModifier(self, node: nodes.ScopedEvalContextModifier) -> NoReturn:
        """Texts with another type would not be counted."""
        _refuse(node, "autoescape is not for templates: prompts are no markup")

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Everything else, unless it leads to other files."""
        if type(node) in NOT_OFFERED:
            _refuse(node, f"{NOT_OFFERED[type(node)]} is not for templates: each stands alone")
        return super().generic_visit(node, *args, **kwargs)


def _refuse(node: nodes.Node, fault: str) -> NoReturn:
    raise TemplateSyntaxError(fault, node.lineno)
