"""Settings of one run that another command goes by: all but those that what it is told leaves no use for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from megatron.architectures.registry import ARCHITECTURES
from megatron.cli.run_config import RunConfig
from megatron.loop.options import OptimizerOptions
from megatron.modeling.options import POSITION_SETTINGS
from megatron.objectives.registry import OBJECTIVES

PATHS = ("data_path", "train_data_path", "valid_data_path", "split")
DOCUMENT_RULES = ("reset_attention_mask", "reset_position_ids", "eod_mask_loss")
SCHEDULE = ("min_lr", "lr_decay_iters", "lr_warmup_iters", "lr_hold_iters", "lr_wsd_decay_iters", "lr_wsd_decay_style")
PRECISION = ("bf16", "fp16", "initial_loss_scale", "min_loss_scale", "loss_scale_window", "hysteresis")
# Any optimizer is told these.
OF_NO_OPTIMIZER = (*PRECISION, "z_loss_coeff")
OF_AN_OPTIMIZER = tuple(
    field.name for field in dataclasses.fields(OptimizerOptions) if field.name not in OF_NO_OPTIMIZER
)
# A setting, and those that belong to its old value and go with it when it is given another one.
GO_TOGETHER: dict[str, tuple[str, ...]] = {
    "data_path": PATHS,
    "train_data_path": PATHS,
    "pack_documents": DOCUMENT_RULES,
    "begin_with_start_token": ("start_token",),
    "lr_decay_style": SCHEDULE,
    "bf16": PRECISION,
    "fp16": PRECISION,
    "optimizer": OF_AN_OPTIMIZER,
    "position_embedding_type": tuple(name for names in POSITION_SETTINGS.values() for name in names),
    "init_method": ("init_method_std",),
}


def inherited(
    before: RunConfig, sections: Sequence[str], given: Mapping[str, Any], *, architecture: str, objective: str
) -> dict[str, Any]:
    """By field, what these sections of `before` say and still counts under what is `given`.

    architecture, objective: those that the settings are for; a name that is not known leaves no setting out.
    """
    settings = {name: value for section in sections for name, value in vars(getattr(before, section)).items()}
    left_out = {*_without_use(before, architecture, objective)}
    for name, belonging in GO_TOGETHER.items():
        if name in given and name in settings and given[name] != settings[name]:
            left_out |= {*belonging}
    return {name: value for name, value in settings.items() if name not in left_out}


def _without_use(before: RunConfig, architecture: str, objective: str) -> Iterator[str]:
    if architecture in ARCHITECTURES:
        for names in ARCHITECTURES[architecture].ignores.values():
            yield from names
    if objective in OBJECTIVES:
        chosen = OBJECTIVES[objective]
        yield from vars(before.objective_options).keys() - set(chosen.settings)
        if chosen.is_complete:
            yield from DOCUMENT_RULES
        if chosen.reads_pairs:
            yield "pack_documents"
