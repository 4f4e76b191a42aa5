"""`tools/convert_checkpoint.py verify`, and how to-hf and from-hf end: with a verdict."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.basics.errors import RunFault, UserError
from megatron.cli.comparison import judge
from megatron.cli.origin import chosen_checkpoint
from megatron.conversion.options import CheckpointChoice, ComparisonOptions, FolderOptions, SourceOptions

if TYPE_CHECKING:
    from megatron.conversion.verdict import Verdict

logger = logging.getLogger(__name__)


def verify(
    source: SourceOptions, checkpoint: CheckpointChoice, target: FolderOptions, options: ComparisonOptions
) -> Verdict:
    """Compare, print the verdict, and keep it in a folder that is an export of ours. Raises UserError and RunFault."""
    from megatron.conversion.verification_sample import sample_text

    run, folder = Path(str(source.load)), Path(str(target.hf))
    # The run may be training on: what is checked here is what will be read.
    iteration, _, _ = chosen_checkpoint(run, checkpoint.load_iteration)
    verdict, theirs = judge(
        run,
        iteration,
        folder,
        sample_text(options.verify_text),
        tokenizer_model=source.tokenizer_model,
        tolerance=options.tolerance,
    )
    conclude(verdict, folder, keep_in=folder if theirs.is_export_of_ours else None, must_be_kept=False)
    return verdict


def conclude(verdict: Verdict, judged: Path, *, keep_in: Path | None, must_be_kept: bool = True) -> None:
    """Print a verdict, then keep it in a folder of ours.

    judged: the folder that is not what it should be. must_be_kept: else a folder that cannot be written is a warning.
    Raises RunFault for a verdict that has failed, UserError for one that was not kept.
    """
    print(verdict.lines(), flush=True)
    try:
        if keep_in is not None:
            _keep(verdict, keep_in)
    except UserError as fault:
        if must_be_kept and verdict.has_passed:
            raise
        logger.warning("warning: the verdict is not kept: %s", fault)
    if not verdict.has_passed:
        raise RunFault(f"{judged} does not hold the model that it was compared with: {'; '.join(verdict.reasons)}.")


def _keep(verdict: Verdict, folder: Path) -> None:
    """Write verdict.json into a folder of ours, and the verdict into its card where it has one."""
    from megatron.conversion.model_card import CARD, write_verdict

    verdict.write(folder)
    if (folder / CARD).is_file():
        write_verdict(folder, verdict.markdown())
