"""How a task of lm-eval wants text generated, in our terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from megatron.basics.errors import UserError
from megatron.evaluation.options import GenerationOptions

DEFAULT_NEW_TOKENS = 256  # lm-eval's, for tasks that do not say how much to write
SAMPLING_SETTINGS = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
GREEDY_DEFAULTS: dict[str, Any] = {"num_beams": 1, "repetition_penalty": 1.0}


def sampling(
    settings: Mapping[str, Any], *, most_new_tokens: int, micro_batch_size: int
) -> tuple[GenerationOptions, list[str]]:
    """A task's `generation_kwargs` as ours, and the texts that end what is written.

    Without `do_sample`, or at temperature 0, the likeliest token is taken; a sampled task without a temperature has 1,
    as in transformers. Raises UserError for what our generation cannot do.
    """
    known = normalize_gen_kwargs(dict(settings), DEFAULT_NEW_TOKENS)
    faults = [*_faults(known)]
    if faults:
        raise UserError(*faults)
    temperature = float(known.get("temperature", 1.0)) if known["do_sample"] else 0.0
    is_greedy = temperature == 0
    options = GenerationOptions(
        max_new_tokens=max(1, min(int(known["max_gen_toks"]), most_new_tokens)),
        temperature=temperature,
        top_k=None if is_greedy else int(known.get("top_k") or 0) or None,
        top_p=1.0 if is_greedy else float(known.get("top_p", 1.0)),
        micro_batch_size=micro_batch_size,
    )
    return options, [text for text in known["until"] if text]


def sampling_faults(task: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each thing that the task asks for and our generation cannot do."""
    try:
        sampling(settings, most_new_tokens=1, micro_batch_size=1)
    except UserError as error:
        yield from (f"--tasks {task}: {fault}" for fault in error.faults)
    except (TypeError, ValueError) as error:
        yield f"--tasks {task}: its generation_kwargs cannot be read ({error}); mend the task."


def _faults(known: Mapping[str, Any]) -> Iterator[str]:
    for name, value in known.items():
        if name not in SAMPLING_SETTINGS and value != GREEDY_DEFAULTS.get(name):
            yield f"it asks for generation with {name} {value}, which --load cannot do; use --hf, or leave the task."
    top_p = float(known.get("top_p", 1.0))
    if not 0 < top_p <= 1:
        yield f"it asks for top_p {top_p}, which is not above 0 and at most 1; mend the task."
    for name in ("temperature", "top_k"):
        if float(known.get(name) or 0) < 0:
            yield f"it asks for {name} {known[name]}, which is below 0; mend the task."
