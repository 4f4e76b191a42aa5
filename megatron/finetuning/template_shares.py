"""Which examples of a data set go through which of its templates: all through all, or within T0's cap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count

import numpy as np

from megatron.basics.draws import Draws
from megatron.basics.errors import UserError
from megatron.basics.seeds import generator_for, seed_for
from megatron.prompting.mixture import template_cap
from megatron.prompting.rendering import ExampleToRender
from megatron.prompting.template import Example


def number_of_prompts(examples: int, num_templates: int, cap: int | None) -> int:
    """How many pairs of example and template there are; cap: see `template_cap`, None for none.

    Raises UserError for a cap that is smaller than the templates are many.
    """
    each = examples if cap is None else template_cap(examples, num_templates, cap)
    if examples and not each:
        raise UserError(f"a cap of {cap} leaves none of {num_templates} templates an example; raise --cap.")
    return num_templates * each


def shared_out(
    rows: Iterable[Example], examples: int, num_templates: int, cap: int | None, *, seed: int, data_set: str
) -> Iterator[ExampleToRender]:
    """The examples to render, each with its templates, in their order.

    All through all templates up to the cap. Of a larger data set each template has cap / templates examples, as many as
    its weight stands for, and no other has them; the seed chooses.
    """
    if cap is None or examples <= cap:
        everywhere = range(num_templates)
        yield from (ExampleToRender(index, example, everywhere) for index, example in zip(count(), rows, strict=False))
        return
    total = number_of_prompts(examples, num_templates, cap)
    chosen = Draws(seed_for(seed, "examples within the cap", data_set)).subset(examples, total)
    dealt: Sequence[int] = (
        generator_for(seed, "templates of examples", data_set).permutation(np.arange(total) % num_templates).tolist()
    )
    wanted = iter(zip(chosen.tolist(), dealt, strict=True))
    number, template = next(wanted)
    for index, example in enumerate(rows):
        if index == number:
            yield ExampleToRender(index, example, (template,))
            number, template = next(wanted, (-1, -1))
            if number < 0:
                return
