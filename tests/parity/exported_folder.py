"""The folder that an export writes of weights that stand in memory, without a checkpoint."""

from types import SimpleNamespace

from megatron.conversion.choose_family import Choice
from megatron.conversion.export import plan_export, write_export


def export_tensors(family, described, tensors, folder):
    """Export a model whose tensors have the family's names; the plan of what was written."""
    plan = plan_export(Choice(family, described), 10**9)
    ours = {pair.ours: pair.to_ours(tensors) for pair in plan.pairs}

    def read_box(name, origin, shape, *, master):
        assert not master
        return ours[name][tuple(slice(first, first + size) for first, size in zip(origin, shape, strict=True))]

    sources = (SimpleNamespace(read_box=read_box), SimpleNamespace(entry=dict))
    write_export(plan, *sources, folder, from_masters=False, advance=lambda _: None)
    return plan
