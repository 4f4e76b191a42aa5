"""Rewrites a template before it is compiled: what Jinja's sandbox lets it do unseen is counted, or refused."""

from __future__ import annotations

from typing import Any, NoReturn

from jinja2 import TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

from megatron.prompting.work_limit import STEP

TURNS = "turns of a loop"  # the name of a filter that no template can write behind a bar
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
