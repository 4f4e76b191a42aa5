"""`torchrun finetune_t0.py`: a checkpoint is finetuned on prompted tasks, as T0 was. Sanh et al. 2022, section 5."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from megatron.adaptation.options import DECODERS
from megatron.basics.errors import exit_on_user_error
from megatron.basics.option import Options
from megatron.cli.adapt import Purpose, Start, adapt
from megatron.cli.finetune_options import FinetuningOptions
from megatron.cli.inherited import PATHS
from megatron.data.options import DataOptions

INPUTS, TARGETS = 1024, 256  # tokens of T0's rows
DESCRIPTION = (
    "Finetune the checkpoint of --load on prompted tasks, as it is or as the architecture of --to, on any layout; "
    "under torchrun. --data-path names data sets of inputs and targets that tools/prepare_tasks.py wrote, each by its "
    "WEIGHT, its share of examples. Takes the flags of the pretrain scripts as well: those of model and tokenizer "
    "default to what the run was given, and these to T0's: --seq-length 1280, of an encoder-decoder 1024 and "
    "--decoder-seq-length 256, or as many as the model has learnt positions for; dropout 0.1; adafactor with a "
    "constant --lr 0.001."
)
SECTIONS: dict[str, type[Options]] = {"adaptation": FinetuningOptions}


def usual_settings(start: Start, given: Mapping[str, Any]) -> dict[str, Any]:
    """T0's settings, by field, and no data: those of the source may be prompts, too, and are named anew all the same.

    A rate that goes on from the source stays what it was, and so does an optimizer whose moments are kept.
    """
    to = given.get("to", start.config.architecture)
    settings = {"to": to, "hidden_dropout": 0.1, "attention_dropout": 0.1, **_lengths(start, to)}
    settings |= {name: getattr(DataOptions(), name) for name in PATHS}
    settings["schedule"] = given.get("schedule", "rewarm")
    if settings["schedule"] == "rewarm":
        kept = given.get("optimizer_state") == "keep"
        optimizer = given.get("optimizer", start.config.optimizer.optimizer if kept else "adafactor")
        settings |= {"optimizer": optimizer, "lr_decay_style": "constant"}
        if optimizer == "adafactor":
            settings["lr"] = 1e-3  # a share of each matrix's size, which says nothing of another optimizer's rate
    return settings


def _lengths(start: Start, to: str) -> dict[str, int]:
    """T0's, or as many tokens as the model has learnt positions for."""
    model, data = start.config.model, start.config.data
    most = INPUTS + TARGETS
    if model.position_embedding_type == "learned_absolute":
        most = model.max_position_embeddings or max(data.seq_length, data.decoder_seq_length or 0)
    if to in DECODERS:
        return {"seq_length": min(INPUTS + TARGETS, most)}
    return {"seq_length": min(INPUTS, most), "decoder_seq_length": min(TARGETS, most)}


PURPOSE = Purpose(description=DESCRIPTION, sections=SECTIONS, objective="multitask", usual_settings=usual_settings)


def main() -> None:
    """Run the command. Exits with the code of the run."""
    exit_on_user_error(lambda: adapt(sys.argv[1:], PURPOSE))
