"""`tools/convert_checkpoint.py verify`, and how to-hf and from-hf end: with a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from megatron.basics.errors import RunFault, UserError
from megatron.checkpoint.folders import checkpoints_of
from megatron.cli.comparison import judge
from megatron.cli.origin import Origin, newest_checkpoint
from megatron.conversion.options import CheckpointChoice, ComparisonOptions, FolderOptions, SourceOptions

if TYPE_CHECKING:
    from megatron.conversion.verdict import Verdict


def verify(
    source: SourceOptions, checkpoint: CheckpointChoice, target: FolderOptions, options: ComparisonOptions
) -> Verdict:
    """Compare, print the verdict, and keep it in a folder that is an export of ours. Raises UserError and RunFault."""
    from megatron.conversion.verification_sample import sample_text

    run, folder = Path(str(source.load)), Path(str(target.hf))
    if not checkpoints_of(run):
        raise UserError(f"--load {run} holds no complete checkpoint; give a run folder with iter_NNNNNNN folders.")
    # The run may be training on: what is checked here is what will be read.
    iteration, _, _ = newest_checkpoint(Origin(run, checkpoint.load_iteration, weights_only=True))
    verdict, theirs = judge(
        run,
        iteration,
        folder,
        sample_text(options.verify_text),
        tokenizer_model=source.tokenizer_model,
        tolerance=options.tolerance,
    )
    if theirs.is_export_of_ours:
        keep(verdict, folder)
    conclude(verdict, folder)
    return verdict


def keep(verdict: Verdict, folder: Path) -> None:
    """Write verdict.json into a folder of ours, and the verdict into its card where it has one."""
    from megatron.conversion.model_card import CARD, write_verdict

    verdict.write(folder)
    if (folder / CARD).is_file():
        write_verdict(folder, verdict.markdown())


def conclude(verdict: Verdict, judged: Path) -> None:
    """Print a verdict. Raises RunFault for one that has failed; judged: the folder that is not what it should be."""
    print(verdict.lines(), flush=True)
    if not verdict.has_passed:
        raise RunFault(f"{judged} does not hold the model that it was compared with: {'; '.join(verdict.reasons)}.")
