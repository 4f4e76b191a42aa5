"""`tools/convert_checkpoint.py from-hf`: a Hugging Face folder as a run folder with a checkpoint of iteration 0."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.architectures.legal_pairs import legal_objectives
from megatron.architectures.registry import ARCHITECTURES
from megatron.basics.errors import UserError, nearest
from megatron.basics.progress import progress
from megatron.checkpoint.contents import Contents, Progress
from megatron.checkpoint.options import CheckpointOptions
from megatron.cli.chosen_cell import USUAL_OBJECTIVES
from megatron.cli.comparison import foresee, judge
from megatron.cli.cross_checks import SETTING_RULES
from megatron.cli.flags import broken_rules
from megatron.cli.imported_tokens import start_setting, with_start_token
from megatron.cli.run_config import SECTIONS, RunConfig
from megatron.cli.run_record import tokenizer_record, write_run_record
from megatron.cli.verify import conclude
from megatron.cli.wire_rows import build_objective
from megatron.conversion.options import ComparisonOptions, ImportOptions, SourceOptions, TargetOptions
from megatron.conversion.provenance import imported_stage
from megatron.data.options import DataOptions
from megatron.layout.options import LayoutOptions
from megatron.loop.options import BatchOptions, LoggingOptions, OptimizerOptions
from megatron.objectives.options import ObjectiveOptions

if TYPE_CHECKING:
    from megatron.conversion.described_model import DescribedModel
    from megatron.conversion.load import ImportPlan
    from megatron.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

LEAST_MULTIPLE = 128  # of the rows of a table of words: as --make-vocab-size-divisible-by has it


def from_hf(
    source: SourceOptions, target: TargetOptions, options: ImportOptions, comparison: ComparisonOptions | None
) -> Path:
    """Write the run folder, and compare it with its source; its path. Raises UserError, RunFault where they differ.

    comparison: None to leave it out.
    """
    from megatron.conversion.folder_code import brings_our_code
    from megatron.conversion.load import plan_import
    from megatron.conversion.new_folder import new_folder, require_space
    from megatron.conversion.verification_sample import sample_text

    text = sample_text(comparison.verify_text) if comparison else None
    folder, save = Path(str(source.load)), Path(str(target.save)).resolve()
    plan = plan_import(folder, family=target.family, dtype=target.dtype)
    for remark in plan.family.remarks(plan.folder.config, plan.described):
        logger.warning("warning: %s", remark)
    faults: list[str] = []
    if comparison:
        with _noted(faults):
            brings_our_code(folder, plan.folder.config, plan.family, plan.described)  # refuses that of others
    with _noted(faults):
        objective = _objective(plan, options)
    with _noted(faults):
        require_space(save, plan.size)
    with new_folder(save) as work:
        with _noted(faults):
            tokenizer = _tokenizer(plan, source, options, work, save)
        if faults:
            raise UserError(*faults)
        if text:
            foresee(text, tokenizer, plan.described)
        plan = replace(plan, described=with_start_token(plan, tokenizer, _tokenizer_folder(plan, source)))
        plan = replace(plan, described=_with_room_for(plan, tokenizer))
        config = _run_config(plan, objective, options, tokenizer, save)
        lineage = [imported_stage(config.architecture, objective, folder.resolve().name)]
        contents = Contents(
            progress=Progress(),
            run=config.as_dict(),
            tokenizer=tokenizer_record(tokenizer),
            lineage=plan.provenance.lineage if plan.provenance else lineage,
            optimizer={"step": 0, "grad_scaler": None},
        )
        _write(plan, contents, target, work)
        write_run_record(work, config, tokenizer, {"iteration": 0, "imported_from": str(folder.resolve())})
    print(
        f"{folder} is now {save}: {config.architecture}, {len(plan.pairs)} weights in {plan.described.dtype}; train it "
        f"with --load {target.save} --finetune, or adapt.py --optimizer-state fresh --schedule rewarm",
        file=sys.stderr,
    )
    if text and comparison:
        has_own_tokenizer = source.tokenizer_model is None
        verdict, _ = judge(save, 0, folder, text, same_tokenizer=has_own_tokenizer, tolerance=comparison.tolerance)
        conclude(verdict, save, keep_in=save)
    return save


@contextlib.contextmanager
def _noted(faults: list[str]) -> Iterator[None]:
    """Keep what is wrong in the block, so that it is told with all the rest."""
    try:
        yield
    except UserError as error:
        faults += error.faults


def _objective(plan: ImportPlan, options: ImportOptions) -> str:
    """What the model was trained to predict. Raises UserError for what its architecture cannot."""
    architecture = plan.described.architecture
    legal = legal_objectives(architecture)
    if options.objective is not None and options.objective not in legal:
        guess = nearest(options.objective, legal)
        takes = f"{guess} It takes" if guess else " it takes"
        raise UserError(f"--objective {options.objective} is not one of {architecture};{takes}: {', '.join(legal)}.")
    known = plan.provenance.objective if plan.provenance and plan.provenance.objective in legal else None
    return options.objective or known or USUAL_OBJECTIVES[architecture]


def _tokenizer(plan: ImportPlan, source: SourceOptions, options: ImportOptions, work: Path, save: Path) -> Tokenizer:
    """The tokenizer that is given, or the folder's own, copied. Raises UserError where it does not fit the model."""
    from megatron.conversion.tokenizer_files import import_tokenizer
    from megatron.conversion.unused_words import name_unused_words
    from megatron.tokenization.tokenizer import load_tokenizer

    words = plan.described.vocabulary_size
    if source.tokenizer_model is not None:
        usual = "HuggingFaceTokenizer" if Path(source.tokenizer_model).is_dir() else "SentencePieceTokenizer"
        tokenizer = load_tokenizer(options.tokenizer_type or usual, source.tokenizer_model)
    else:
        kind, path = import_tokenizer(plan.folder.path, work)
        tokenizer = load_tokenizer(kind, str(path))
        if tokenizer.vocabulary_size < words and name_unused_words(path, words):
            tokenizer = load_tokenizer(kind, str(path))
        tokenizer.source = str(save / path.relative_to(work))  # where it will be in a moment
    size = tokenizer.vocabulary_size
    if size > words:
        raise UserError(
            f"--tokenizer-model {source.tokenizer_model or plan.folder.path} has {size} ids and the model {words} "
            "words; give the tokenizer that the model was trained with."
        )
    if size < words:
        logger.warning(
            "warning: the last %d of the model's %d words have no token in the tokenizer; they are never predicted, "
            "and an export leaves them out.",
            words - size,
            words,
        )
    return tokenizer


def _tokenizer_folder(plan: ImportPlan, source: SourceOptions) -> Path | None:
    """Where AutoTokenizer finds the tokenizer; None for a file."""
    folder = plan.folder.path if source.tokenizer_model is None else Path(source.tokenizer_model)
    return folder if folder.is_dir() else None


def _with_room_for(plan: ImportPlan, tokenizer: Tokenizer) -> DescribedModel:
    """The model with tables that are as long for the words that have a token as for all of them."""
    described = plan.described
    multiple = LEAST_MULTIPLE
    while -(-tokenizer.vocabulary_size // multiple) != -(-described.vocabulary_size // multiple):
        multiple *= 2
    return replace(described, model=replace(described.model, make_vocab_size_divisible_by=multiple))


def _run_config(
    plan: ImportPlan, objective: str, options: ImportOptions, tokenizer: Tokenizer, save: Path
) -> RunConfig:
    """Settings that later runs begin with. Raises UserError for those that cannot be."""
    described, before = plan.described, plan.provenance
    config = RunConfig(
        architecture=described.architecture,
        objective=objective,
        model=replace(described.canonical_model(), max_position_embeddings=described.max_positions),
        layout=LayoutOptions(),
        batch=BatchOptions(),
        optimizer=OptimizerOptions(bf16=described.dtype == "bfloat16", fp16=described.dtype == "float16"),
        objective_options=ObjectiveOptions(),
        data=DataOptions(
            seq_length=options.seq_length or (before.seq_length if before else described.max_positions),
            decoder_seq_length=before.decoder_seq_length if before else None,
            begin_with_start_token=described.begins_with_start_token,
            start_token=start_setting(plan, tokenizer),
            tokenizer_type=tokenizer.tokenizer_type,
            tokenizer_model=tokenizer.source,
        ),
        checkpoint=CheckpointOptions(save=str(save)),
        logging=LoggingOptions(),
    )
    sections = {name: getattr(config, name) for name in ("architecture", *SECTIONS)}
    faults = [*broken_rules(SETTING_RULES, {**sections, "world_size": 1})]
    if faults:
        raise UserError(*faults)
    try:
        build_objective(config, ARCHITECTURES[config.architecture](), tokenizer)
    except UserError as error:
        raise UserError(*error.faults, f"--objective {objective} does not fit this model; give another one.") from error
    return config


def _write(plan: ImportPlan, contents: Contents, target: TargetOptions, work: Path) -> None:
    from megatron.conversion.checkpoint_writer import write_checkpoint

    with progress("import", plan.size, "B", unit_scale=True) as bar:
        write_checkpoint(
            work,
            contents,
            plan.planned(),
            plan.tensors(),
            max_shard_bytes=target.max_shard_bytes,
            advance=bar.advance,
        )
