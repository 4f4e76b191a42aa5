"""`tools/convert_checkpoint.py to-hf`: a checkpoint of a run folder as a Hugging Face folder."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.basics.progress import progress
from megatron.checkpoint.contents import Contents
from megatron.checkpoint.manifest import read_manifest
from megatron.cli.comparison import foresee, judge
from megatron.cli.described_run import describe_run
from megatron.cli.origin import chosen_checkpoint
from megatron.cli.run_config import RunConfig
from megatron.cli.trained_model import read_record
from megatron.cli.verify import conclude
from megatron.conversion.options import CheckpointChoice, ComparisonOptions, SourceOptions, TargetOptions
from megatron.conversion.provenance import Provenance
from megatron.evaluation.options import TrainedModelOptions
from megatron.objectives.registry import OBJECTIVES

if TYPE_CHECKING:
    from megatron.conversion.checkpoint_weights import CheckpointWeights
    from megatron.conversion.export import ExportPlan
    from megatron.tokenization.tokenizer import Tokenizer


logger = logging.getLogger(__name__)


def to_hf(
    source: SourceOptions,
    checkpoint: CheckpointChoice,
    target: TargetOptions,
    comparison: ComparisonOptions | None,
) -> Path:
    """Write the folder, and compare it with the checkpoint; its path. Raises UserError, RunFault where they differ.

    comparison: None to leave it out.
    """
    from megatron.conversion.new_folder import require_space
    from megatron.conversion.verification_sample import sample_text

    text = sample_text(comparison.verify_text) if comparison else None
    run_folder, save = Path(str(source.load)), Path(str(target.save))
    # The run may be training on: what is checked here is what will be read.
    iteration, folder, contents = chosen_checkpoint(run_folder, checkpoint.load_iteration)
    trained = TrainedModelOptions(
        load=source.load, load_iteration=iteration, tokenizer_model=source.tokenizer_model, device="cpu"
    )
    config, tokenizer = read_record(trained)
    plan, weights = _plan(folder, config, tokenizer, target)
    from_masters = plan.choice.described.dtype == "float32" and weights.dtype != "float32" and weights.has_masters
    for loss in plan.choice.family.lost(plan.choice.described):
        logger.warning("warning: %s", loss)
    if text:
        foresee(text, tokenizer, plan.choice.described)
    require_space(save, plan.size)
    _write(plan, weights, tokenizer, _provenance(config, contents), save, from_masters=from_masters)
    print(
        f"{folder} is now {save}: {plan.choice.family.class_name}, {len(plan.pairs)} weights in "
        f"{plan.choice.described.dtype}, {plan.size / 1e6:,.1f} MB in {len(plan.shards)} files",
        file=sys.stderr,
    )
    if text and comparison:
        verdict, _ = judge(
            run_folder,
            iteration,
            save,
            text,
            tokenizer_model=source.tokenizer_model,
            tolerance=comparison.tolerance,
        )
        conclude(verdict, save, keep_in=save)
    return save


def _plan(
    folder: Path, config: RunConfig, tokenizer: Tokenizer, target: TargetOptions
) -> tuple[ExportPlan, CheckpointWeights]:
    from megatron.conversion.checkpoint_weights import CheckpointWeights
    from megatron.conversion.choose_family import family_for
    from megatron.conversion.export import plan_export

    described = describe_run(config, tokenizer)
    choice = family_for(described, target.family)
    weights = CheckpointWeights(folder, read_manifest(folder), described.weights())
    dtype = target.dtype or weights.dtype
    choice = replace(choice, described=replace(choice.described, dtype=dtype))
    return plan_export(choice, target.max_shard_bytes), weights


def _provenance(config: RunConfig, contents: Contents) -> Provenance:
    return Provenance(
        architecture=config.architecture,
        objective=config.objective,
        iteration=contents.progress.iteration,
        lineage=contents.lineage,
        seq_length=config.data.seq_length,
        decoder_seq_length=config.data.decoder_seq_length,
        begin_with_start_token=config.data.begin_with_start_token,
        start_token=config.data.start_token,
        ends_inputs=OBJECTIVES[config.objective].ends_inputs,
    )


def _write(
    plan: ExportPlan,
    weights: CheckpointWeights,
    tokenizer: Tokenizer,
    provenance: Provenance,
    save: Path,
    *,
    from_masters: bool,
) -> None:
    from megatron.conversion.export import write_export
    from megatron.conversion.model_card import write_card
    from megatron.conversion.new_folder import new_folder
    from megatron.conversion.tokenizer_files import export_tokenizer

    with new_folder(save) as work:
        export_tokenizer(tokenizer, work, plan.choice.described)  # first: it may refuse
        with progress("export", plan.size, "B", unit_scale=True) as bar:
            write_export(plan, weights, provenance, work, from_masters=from_masters, advance=bar.advance)
        write_card(work, save.resolve().name, plan, provenance, from_masters=from_masters)
