"""`torchrun adapt.py`: a checkpoint goes on as another architecture, with another objective, or with other data."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from megatron.adaptation.options import DECODERS, ENCODER_DECODERS, AdaptationOptions
from megatron.adaptation.shapes import adapted_model, pair_faults, shape_faults
from megatron.adaptation.vocabulary import tokens_to_add
from megatron.architectures.legal_pairs import legal_objectives
from megatron.basics.errors import UserError, exit_on_user_error, nearest
from megatron.basics.option import Options, option
from megatron.checkpoint import folders
from megatron.checkpoint.options import CheckpointOptions
from megatron.cli import run_config
from megatron.cli.cross_checks import SETTING_RULES, schedule_fits_run
from megatron.cli.file_checks import FILE_RULES
from megatron.cli.flags import broken_rules, parse
from megatron.cli.inherited import SCHEDULE, inherited
from megatron.cli.origin import Origin, newest_checkpoint
from megatron.cli.pretrain import train
from megatron.cli.run_config import RunConfig, world_size_from_environment
from megatron.loop.options import OptimizerOptions
from megatron.modeling.options import ModelOptions

DESCRIPTION = (
    "Go on with the checkpoint of --load as another architecture, with another objective or other data, on any layout; "
    "under torchrun. Takes the flags of the pretrain scripts as well: those of model, data and tokenizer default to "
    "what the run was given, and width and depth stay."
)

RATE = ("lr", "lr_decay_style", *SCHEDULE)
# Decays whose whole course depends on where they end; the others only stop there.
SHAPED_BY_THEIR_END = ("linear", "cosine", "WSD")


@dataclass(frozen=True, kw_only=True)
class ObjectiveChoice(Options):
    """What is learnt from now on."""

    group: ClassVar[str] = "objective"

    objective: str | None = option(
        None, "What the model learns to predict. Default: what it learnt before.", metavar="NAME"
    )


SECTIONS: dict[str, type[Options]] = {"adaptation": AdaptationOptions, "objective": ObjectiveChoice}


@dataclass(frozen=True)
class Start:
    """A checkpoint and the settings it was trained with. is_own: of the adapted run itself, which goes on."""

    iteration: int
    folder: Path
    config: RunConfig
    is_own: bool


@dataclass(frozen=True)
class Purpose:
    """What a command adapts for, with an objective of its own.

    sections: in the place of those of adapt.py. usual_settings: by field, what a new run goes by where its command line
    does not say, the architecture `to` among them; what they leave out is that of the source.
    """

    description: str
    sections: Mapping[str, type[Options]]
    objective: str
    usual_settings: Callable[[Start, Mapping[str, Any]], dict[str, Any]]


def main() -> None:
    """Run the command. Exits with the code of the run."""
    exit_on_user_error(lambda: adapt(sys.argv[1:]))


def adapt(argv: Sequence[str], purpose: Purpose | None = None) -> int:
    """Parse, check, convert, train. Every wrong setting is answered before torch is imported."""
    started = time.monotonic()
    config, options = parse_adapt(argv, purpose)
    return train(_with_needed_tokens(config), started, options)


def parse_adapt(argv: Sequence[str], purpose: Purpose | None = None) -> tuple[RunConfig, AdaptationOptions]:
    """The settings of the adapted run. Raises UserError with every fault."""
    starts: list[Start] = []

    def defaults(given: Mapping[str, Any]) -> dict[str, Any]:
        starts.extend(_start_of(given, needs_target=purpose is None))
        if not starts:
            return {}
        usual = _usual_settings(purpose, starts[0], given) if purpose else {}
        return {**_inherited(starts[0], {**usual, **given}), **usual}

    sections = {**(purpose.sections if purpose else SECTIONS), **run_config.SECTIONS}
    description = purpose.description if purpose else DESCRIPTION
    parsed = parse(argv, sections, description=description, rules=(_load_is_named,), defaults=defaults)
    if purpose:
        parsed["objective"] = ObjectiveChoice(objective=purpose.objective)
    options: AdaptationOptions = parsed["adaptation"]
    assert options.to is not None and starts, "a command line without --to or --load has faults"
    known = {
        **parsed,
        "architecture": options.to,
        "world_size": world_size_from_environment(),
        "start": starts[0],
    }
    faults = [*broken_rules((_objective_is_legal, _becomes_target), known)]
    if not faults:
        takes_no_step = options.schedule == "continue" and parsed["batch"].train_iters <= starts[0].iteration
        unneeded = (schedule_fits_run,) if takes_no_step else ()
        faults += broken_rules([rule for rule in (*SETTING_RULES, *FILE_RULES) if rule not in unneeded], known)
    if faults:
        raise UserError(*faults)
    training = {name: parsed[name] for name in run_config.SECTIONS}
    return RunConfig(architecture=options.to, objective=parsed["objective"].objective, **training), options


def _start_of(given: Mapping[str, Any], *, needs_target: bool) -> Iterator[Start]:
    """The checkpoint that settings are taken from: of --save where the run has begun, else of --load.

    Nothing where the command line does not name what it takes; other rules say so.
    """
    load, save = given.get("load"), given.get("save")
    targets = (*DECODERS, *ENCODER_DECODERS)
    if given.get("to") not in (targets if needs_target else (*targets, None)):
        return
    if save and load and Path(save).resolve() == Path(load).resolve():
        raise UserError(f"--save {save} is --load; give the adapted run a folder of its own.")
    is_own = _has_begun(save)
    if is_own:
        origin = Origin(Path(str(save)), None, weights_only=False)
    elif load:
        origin = Origin(Path(load), given.get("load_iteration"), weights_only=False)
    else:
        return
    if not folders.checkpoints_of(origin.run_folder):
        raise UserError(f"--load {load} holds no complete checkpoint; give a run folder with iter_NNNNNNN folders.")
    iteration, folder, contents = newest_checkpoint(origin)
    config = RunConfig.from_dict(contents.run, str(folder), warn=lambda sentence: None)
    yield Start(iteration, folder, config, is_own)


def _has_begun(save: str | None) -> bool:
    """Whether the run of a --save folder goes on from its own checkpoints, and needs its source no more."""
    return bool(save and folders.checkpoints_of(Path(save)))


def _usual_settings(purpose: Purpose, start: Start, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the purpose; a run that has begun goes on by its own settings instead."""
    usual = {"to": start.config.architecture} if start.is_own else purpose.usual_settings(start, given)
    return {**usual, "objective": purpose.objective}


def _inherited(start: Start, given: Mapping[str, Any]) -> dict[str, Any]:
    """By field, what the command line need not say again: all that still counts under the target."""
    before, to = start.config, given["to"]
    objective = given.get("objective") or before.objective
    optimizer = before.optimizer
    if optimizer.lr_decay_style in SHAPED_BY_THEIR_END and not start.is_own:
        end = optimizer.lr_decay_iters or before.batch.train_iters
        optimizer = dataclasses.replace(optimizer, lr_decay_iters=end)
    model = _with_rows(ModelOptions(**_kept_model(start, given.get("from_stack"), to)), given)
    before = dataclasses.replace(before, model=model, optimizer=optimizer)
    sections = ("model", "objective_options", "data", "optimizer")
    settings = {"objective": objective}
    settings |= inherited(before, sections, given, architecture=to, objective=objective)
    left_out = RATE if given.get("schedule") == "rewarm" and not start.is_own else ()
    return {name: value for name, value in settings.items() if name not in left_out}


def _kept_model(start: Start, stack: str | None, to: str) -> dict[str, Any]:
    before = start.config
    positions = before.model.max_position_embeddings or max(
        before.data.seq_length, before.data.decoder_seq_length or before.data.seq_length
    )
    options = AdaptationOptions(to=to, from_stack=stack)
    return adapted_model(before.architecture, before.model, positions, options)


def _with_rows(model: ModelOptions, given: Mapping[str, Any]) -> ModelOptions:
    """The same with at least as many positions as rows are told to have, where positions have no weights of their own.

    Those of an import are the length that somebody wrote into a config, which binds nothing.
    """
    positions = model.max_position_embeddings
    if positions is None or model.position_embedding_type == "learned_absolute":
        return model
    rows = (given.get(name) or 0 for name in ("seq_length", "decoder_seq_length"))
    return dataclasses.replace(model, max_position_embeddings=max(positions, *rows))


def _load_is_named(checkpoint: CheckpointOptions) -> Iterator[str]:
    """There is something to adapt, and --finetune is said in other words."""
    if not checkpoint.load and not _has_begun(checkpoint.save):
        yield "--load is missing; name the run folder whose checkpoint is to go on."
    if checkpoint.finetune:
        yield "--finetune has no effect here; say --optimizer-state fresh --schedule rewarm."


def _objective_is_legal(adaptation: AdaptationOptions, objective: ObjectiveChoice) -> Iterator[str]:
    """The target accepts the objective's examples."""
    assert adaptation.to is not None and objective.objective is not None
    legal = legal_objectives(adaptation.to)
    if objective.objective not in legal:
        guess = nearest(objective.objective, legal)
        takes = f"{guess} It takes" if guess else " it takes"
        yield f"--objective {objective.objective} is not one of {adaptation.to};{takes}: {', '.join(legal)}."


def _becomes_target(
    adaptation: AdaptationOptions, model: ModelOptions, optimizer: OptimizerOptions, start: Start
) -> Iterator[str]:
    """The model of the checkpoint can become the model that is asked for."""
    assert adaptation.to is not None
    before = start.config
    if start.is_own:  # the run goes on, and `require_same_run` says what else may not change
        if adaptation.to != before.architecture:
            yield (
                f"--to {adaptation.to} is not the {before.architecture} of {start.folder.parent}, whose run has begun; "
                f"pass {before.architecture}, or choose another --save."
            )
        return
    wrong_pair = [*pair_faults(before.architecture, adaptation)]
    yield from wrong_pair
    if not wrong_pair:
        kept = ModelOptions(**_kept_model(start, adaptation.from_stack, adaptation.to))
        yield from shape_faults(model, kept, adaptation.to, str(start.folder))
    kinds = (before.optimizer.optimizer, optimizer.optimizer)
    if adaptation.optimizer_state == "fresh":
        return
    if kinds[0] != kinds[1]:
        yield (f"--optimizer-state keep takes no moments of {kinds[0]} to {kinds[1]}; use --optimizer-state fresh.")
    elif kinds[0] != "adam" and (before.architecture in DECODERS) != (adaptation.to in DECODERS):
        yield (
            f"--optimizer-state keep: {kinds[0]} keeps sums over rows and columns, which {adaptation.to} has in other "
            f"places than {before.architecture}; use --optimizer-state fresh."
        )


def _with_needed_tokens(config: RunConfig) -> RunConfig:
    """The same with the special tokens that the objective needs and the vocabulary lacks."""
    from megatron.tokenization.tokenizer import load_tokenizer

    data = config.data
    tokenizer = load_tokenizer(data.tokenizer_type, data.tokenizer_model, data.add_special_tokens)
    missing = tokens_to_add(config.objective, tokenizer)
    if not missing:
        return config
    data = dataclasses.replace(data, add_special_tokens=[*data.add_special_tokens, *missing])
    return dataclasses.replace(config, data=data)
