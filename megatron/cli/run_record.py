"""What a run says of itself: run.json, its lineage, and what may change between two starts of it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from megatron.basics.atomic_files import write_json
from megatron.basics.errors import UserError
from megatron.basics.option import default_of, flag_of
from megatron.checkpoint.contents import Contents, Progress
from megatron.cli.data_record import data_changes, data_record
from megatron.cli.run_config import SECTIONS, RunConfig
from megatron.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

RUN_RECORD_NAME = "run.json"
CHANGES_NAMED = 5
PACKAGES = ("torch", "megatron-core", "numpy", "safetensors", "sentencepiece", "transformers")
# Model settings that change how a step is computed and not what is computed from which weights.
FREE_MODEL_SETTINGS = ("hidden_dropout", "attention_dropout", "attention_backend", "init_method", "init_method_std")


def tokenizer_record(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a checkpoint says of the tokenizer."""
    return {
        "type": tokenizer.tokenizer_type,
        "model": str(Path(tokenizer.source).resolve()),
        "fingerprint": tokenizer.fingerprint,
        "vocabulary_size": tokenizer.vocabulary_size,
        "added": list(tokenizer.added),
    }


def lineage_after(earlier: list[dict[str, Any]], config: RunConfig, progress: Progress) -> list[dict[str, Any]]:
    """What the weights were trained on: the stages before this run, then this run so far."""
    stage = {
        "architecture": config.architecture,
        "objective": config.objective,
        "tokens": progress.consumed_tokens,
        "loss_tokens": progress.loss_tokens,
    }
    return [*earlier, stage]


def lineage_line(lineage: list[dict[str, Any]]) -> str:
    """A lineage as people write it: `causal_decoder:full_lm 168B + prefix_decoder:span_corruption 51.2B`.

    Forms that a checkpoint went through without a step are left out; weights that were made elsewhere are not:
    `gpt2 (imported) + causal_decoder:full_lm 1.2B`.
    """
    return " + ".join(map(_stage, (stage for stage in lineage if stage["tokens"] or stage.get("imported"))))


def _stage(stage: dict[str, Any]) -> str:
    if stage.get("imported"):
        return f"{stage['imported']} (imported)"
    return f"{stage['architecture']}:{stage['objective']} {_short(stage['tokens'])}"


def _short(tokens: int) -> str:
    """Three digits and a unit: 51_200_000_000 is 51.2B."""
    for power, unit in ((12, "T"), (9, "B"), (6, "M"), (3, "k")):
        if tokens >= 10**power:
            scaled = tokens / 10**power
            return f"{scaled:.0f}{unit}" if scaled >= 100 else f"{scaled:.3g}{unit}"
    return str(tokens)


def write_run_record(folder: Path, config: RunConfig, tokenizer: Tokenizer, facts: dict[str, Any]) -> None:
    """RUN/run.json: options, versions, tokenizer, figures of the model, and every start so far."""
    path = folder / RUN_RECORD_NAME
    starts: list[dict[str, Any]] = []
    if path.is_file():
        try:
            starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}); move it away and start again.") from error
    start = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: _version_of(name) for name in PACKAGES},
        "data": data_record(config),
        **facts,
    }
    write_json(
        path, {"options": config.as_dict(), "tokenizer": tokenizer_record(tokenizer), "starts": [*starts, start]}
    )


def starts_of(folder: Path) -> list[dict[str, Any]]:
    """What run.json of a folder says of every start; nothing where it cannot be read."""
    try:
        starts: list[dict[str, Any]] = json.loads((folder / RUN_RECORD_NAME).read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return starts


def _version_of(package: str) -> str | None:
    """None for a package that is not installed: a run needs the library of its own tokenizer only."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def require_same_model(contents: Contents, config: RunConfig, tokenizer: Tokenizer, where: Path) -> None:
    """Refuse weights of another model or vocabulary, with every difference, before anything is allocated."""
    # Where both stacks have depths of their own the common one counts for nothing.
    has_own_depths = config.model.encoder_num_layers and config.model.decoder_num_layers
    free = (*FREE_MODEL_SETTINGS, "num_layers") if has_own_depths else FREE_MODEL_SETTINGS
    faults = [*_differences("model", contents, config, free, where)]
    if contents.tokenizer.get("added", []) != list(tokenizer.added):
        there, here = contents.run["data"].get("add_special_tokens"), config.data.add_special_tokens
        faults.append(
            f"--add-special-tokens is {' '.join(here) or 'left out'} here and {' '.join(there or []) or 'left out'} in "
            f"{where}; do as there, or choose another folder."
        )
    elif contents.tokenizer["vocabulary_size"] != tokenizer.vocabulary_size:
        faults.append(
            f"{where} has a vocabulary of {contents.tokenizer['vocabulary_size']}, --tokenizer-model "
            f"{tokenizer.source} one of {tokenizer.vocabulary_size}; pass the run's own tokenizer."
        )
    if faults:
        raise UserError(*faults)


def require_same_run(contents: Contents, config: RunConfig, tokenizer: Tokenizer, where: Path) -> None:
    """Refuse to go on with a run under settings that would make it another run.

    Layout, batch sizes, schedule, precision, dropout, paths and logging may change; architecture, objective, seed,
    optimizer, row length, document rules and tokenizer may not (use --finetune to start a new run from the weights).
    Data may change, too, which is logged: the run goes on at the same sample of another order.
    """
    require_same_model(contents, config, tokenizer, where)
    run = contents.run
    own = config.as_dict()
    faults = []
    for section, name in (
        (None, "architecture"),
        (None, "objective"),
        ("batch", "seed"),
        ("optimizer", "optimizer"),
        ("data", "seq_length"),
        ("data", "decoder_seq_length"),
        ("data", "begin_with_start_token"),
        ("data", "start_token"),
        ("data", "pack_documents"),
        ("data", "reset_attention_mask"),
        ("data", "reset_position_ids"),
        ("data", "eod_mask_loss"),
    ):
        # A record that lacks a setting is older than it, and did what its default does.
        there = run[section].get(name, getattr(SECTIONS[section], name)) if section else run[name]
        here = own[section][name] if section else own[name]
        if there != here:
            faults.append(_difference(name, here, there, where))
    faults += _differences("objective_options", contents, config, (), where)
    if contents.tokenizer["fingerprint"] != tokenizer.fingerprint:
        faults.append(
            f"--tokenizer-model {tokenizer.source} is not the one that {where} was trained with "
            f"({contents.tokenizer['model']}); pass that one, or add --finetune."
        )
    if faults:
        raise UserError(*faults)
    _tell_changed_data(contents, config, where)


def _tell_changed_data(contents: Contents, config: RunConfig, where: Path) -> None:
    try:
        changes = [*data_changes(starts_of(where)[-1]["data"], data_record(config))]
    except (LookupError, TypeError, AttributeError):  # none, or of a start before data were recorded
        return
    if changes:
        more = f"; and {len(changes) - CHANGES_NAMED} more" if len(changes) > CHANGES_NAMED else ""
        logger.warning(
            "warning: the data are not those of the last start of %s: %s%s. The run goes on at sample %s of another "
            "order, in which some of what it has seen may come again and some not at all.",
            where,
            "; ".join(changes[:CHANGES_NAMED]),
            more,
            f"{contents.progress.consumed_samples:,}",
        )


def _differences(
    section: str, contents: Contents, config: RunConfig, free: tuple[str, ...], where: Path
) -> Iterator[str]:
    own = config.as_dict()[section]
    recorded = {field.name: default_of(field) for field in dataclasses.fields(SECTIONS[section])}
    recorded |= contents.run.get(section, {})  # which is older than a setting that it lacks, and did what defaults do
    for name, there in recorded.items():
        if name not in free and own.get(name) != there:
            yield _difference(name, own.get(name), there, where)


def _difference(name: str, here: Any, there: Any, where: Path) -> str:
    mend = "leave it out" if there is None or there is False else "add it" if there is True else f"pass {there}"
    return f"{flag_of(name)} is {here} here and {there} in {where}; {mend}, or choose another folder."
