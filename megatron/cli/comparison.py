"""A checkpoint of a run folder beside a Hugging Face folder: both models loaded in turn, in this process, on CPU."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.basics.errors import UserError
from megatron.basics.progress import progress
from megatron.checkpoint.folders import checkpoints_of
from megatron.checkpoint.manifest import read_manifest
from megatron.cli.described_run import describe_run
from megatron.cli.run_config import RunConfig
from megatron.cli.trained_model import load_model, read_record
from megatron.evaluation.options import TrainedModelOptions

if TYPE_CHECKING:
    from torch import Tensor

    from megatron.conversion.checkpoint_weights import CheckpointWeights
    from megatron.conversion.described_model import DescribedModel
    from megatron.conversion.load import ImportPlan
    from megatron.conversion.parity import Parity
    from megatron.conversion.tokenizer_parity import TokenizerParity
    from megatron.conversion.verdict import Verdict
    from megatron.conversion.verification_sample import Sample, SampleText
    from megatron.conversion.weight_parity import Precision
    from megatron.device.device import Device
    from megatron.layout.grid import Grid
    from megatron.tokenization.tokenizer import Tokenizer

ATTENTION = "sdpa"  # the backend that needs nothing built


@dataclass(frozen=True)
class CheckpointSide:
    """A checkpoint, what its run says of it, and its tensors."""

    trained: TrainedModelOptions
    config: RunConfig
    tokenizer: Tokenizer
    described: DescribedModel
    weights: CheckpointWeights

    @classmethod
    def open(cls, run: Path, iteration: int, tokenizer_model: str | None) -> CheckpointSide:
        """Read what a checkpoint says of itself. Raises UserError. tokenizer_model: where the tokenizer has moved."""
        from megatron.conversion.checkpoint_weights import CheckpointWeights

        trained = TrainedModelOptions(
            load=str(run), load_iteration=iteration, tokenizer_model=tokenizer_model, device="cpu"
        )
        config, tokenizer = read_record(trained)
        described = describe_run(config, tokenizer)
        folder = dict(checkpoints_of(run))[iteration]
        weights = CheckpointWeights(folder, read_manifest(folder), described.weights())
        config = replace(config, model=replace(config.model, attention_backend=ATTENTION))
        return cls(trained, config, tokenizer, described, weights)

    @property
    def name(self) -> str:
        """`first/iter_0001000`, without the paths of this machine."""
        folder = self.weights.folder.resolve()
        return f"{folder.parent.name}/{folder.name}"

    def logits(
        self, sample: Sample, precision: Precision, device: Device, advance: Callable[[int], None]
    ) -> list[Tensor]:
        """Of each row, of the model in float32 with weights as precise as both sides hold them."""
        import torch

        from megatron.conversion.parity import our_logits

        with _world_of_one(self.config, device) as grid, torch.no_grad():
            chunks, _ = load_model(self.trained, self.config, self.tokenizer, device, grid, dtype=torch.float32)
            for name, parameter in (named for chunk in chunks for named in chunk.named_parameters()):
                if precision.from_masters:
                    parameter.copy_(self.weights.read(name, master=True))
                parameter.copy_(precision.rounded(parameter))
            logits = our_logits(chunks, sample, self.described.vocabulary_size, advance)
        del chunks
        gc.collect()  # modules refer to one another, and the other model is loaded now
        return logits


@dataclass(frozen=True)
class FolderSide:
    """A folder that has proved whole. with_code: its class stands in the file that our exports bring."""

    path: Path
    plan: ImportPlan
    with_code: bool

    @classmethod
    def open(cls, path: Path) -> FolderSide:
        """Read all but the tensors. Raises UserError, also for code that is not ours."""
        from megatron.conversion.folder_code import brings_our_code
        from megatron.conversion.load import plan_import

        plan = plan_import(path, family=None, dtype="float32")
        return cls(path, plan, brings_our_code(path, plan.folder.config, plan.family, plan.described))

    @property
    def is_export_of_ours(self) -> bool:
        """Whether we wrote it, so that a verdict may be kept in it."""
        return self.plan.provenance is not None

    def parity(
        self,
        ours: list[Tensor],
        sample: Sample,
        words: int,
        precision: Precision,
        advance: Callable[[int], None],
    ) -> Parity:
        """The logits of this side beside `ours`. Raises RunFault where transformers does not load the folder."""
        from megatron.conversion.loaded_folder import LoadedFolder
        from megatron.conversion.parity import compare

        has_encoder = self.plan.described.architecture == "encoder_decoder"
        loaded = LoadedFolder.open(self.path, has_encoder=has_encoder, with_code=self.with_code)
        loaded.round_weights(precision.rounded)
        return compare(ours, loaded.logits(sample, words, advance), sample)

    def tokenizer_parity(self, ours: CheckpointSide, text: SampleText, *, is_wanted: bool) -> TokenizerParity:
        """The folder's tokenizer beside that of the run, if it should be the same one."""
        from megatron.conversion.tokenizer_parity import TokenizerParity, compare_tokenizers, compare_what_is_around

        if not is_wanted:
            return TokenizerParity(None, "not compared: another one was given")
        parity = compare_tokenizers(ours.tokenizer, self.path, text.text, with_code=self.with_code)
        if not parity.is_same:
            return parity
        return compare_what_is_around(
            parity,
            ours.tokenizer,
            self.path,
            ours.described,
            with_code=self.with_code,
            is_export=self.has_objective_of(ours),
        )

    def has_objective_of(self, ours: CheckpointSide) -> bool:
        """Whether we wrote it from a checkpoint that was trained for the same."""
        before = self.plan.provenance
        return before is not None and before.objective == ours.config.objective

    def different_settings(self, ours: CheckpointSide, *, same_tokenizer: bool) -> tuple[str, ...]:
        """What its config says and that is not so of the checkpoint."""
        from megatron.conversion.setting_parity import different_settings

        return tuple(
            different_settings(
                ours.described,
                self.plan.described,
                is_export=self.is_export_of_ours,
                same_objective=self.has_objective_of(ours),
                same_tokenizer=same_tokenizer,
            )
        )


def foresee(text: SampleText, tokenizer: Tokenizer, described: DescribedModel) -> None:
    """Raise UserError for what would keep `judge` from comparing, while nothing is written yet."""
    from megatron.conversion.verification_sample import cut_sample
    from megatron.device.device import require_supported_versions

    require_supported_versions()
    cut_sample(tokenizer.encode(text.text), described)


def judge(
    run: Path,
    iteration: int,
    folder: Path,
    text: SampleText,
    *,
    tokenizer_model: str | None = None,
    same_tokenizer: bool = True,
    tolerance: float | None = None,
) -> tuple[Verdict, FolderSide]:
    """Whether a folder holds the model of a checkpoint. Raises UserError and RunFault; writes nothing.

    Neither model is in memory while the other is. tokenizer_model: of the run, where it has moved. same_tokenizer:
    the folder should have the tokenizer of the run. tolerance: of logits, None for the usual one.
    """
    from megatron.device.device import choose_device, require_supported_versions

    require_supported_versions()
    device = choose_device("cpu")
    from megatron.conversion.verdict import Verdict
    from megatron.conversion.verification_sample import cut_sample
    from megatron.conversion.weight_parity import Precision, compare_weights, pairs_with

    theirs = FolderSide.open(folder)
    ours = CheckpointSide.open(run, iteration, tokenizer_model)
    as_read = _as_read(ours.described, theirs)
    sample = cut_sample(ours.tokenizer.encode(text.text), as_read)
    precision = Precision.of(ours.weights, theirs.plan)
    pairs = pairs_with(ours.described, theirs.plan)
    plan = theirs.plan
    size = sum(plan.folder.tensors[stored].nbytes for stored in plan.matching.names.values())
    with progress("compare weights", size, "B", unit_scale=True) as bar:
        weights = compare_weights(pairs, theirs.plan, ours.weights, precision, bar.advance)
    with progress("compare logits", 2 * len(sample.rows), "row") as bar:
        logits = ours.logits(sample, precision, device, bar.advance)
        parity = theirs.parity(logits, sample, ours.described.vocabulary_size, precision, bar.advance)
    verdict = Verdict(
        checkpoint=ours.name,
        folder=folder.resolve().name,
        architecture=as_read.architecture,
        text=text.name,
        rows=len(sample.rows),
        row_length=sample.row_length,
        precision=precision,
        tolerance=parity.default_tolerance if tolerance is None else tolerance,
        parity=parity,
        weights=weights,
        tokenizer=theirs.tokenizer_parity(ours, text, is_wanted=same_tokenizer),
        settings=theirs.different_settings(ours, same_tokenizer=same_tokenizer),
    )
    return verdict, theirs


def _as_read(described: DescribedModel, theirs: FolderSide) -> DescribedModel:
    """The checkpoint's model with what the folder makes of rows. Raises UserError where these are different models."""
    other = theirs.plan.described
    reads_causally = other.architecture == "causal_decoder" and theirs.plan.family.holds_as_causal(described)
    if described.architecture != other.architecture and not reads_causally:
        raise UserError(
            f"{theirs.path} holds another architecture ({other.architecture}) than the checkpoint "
            f"({described.architecture}); they are different models."
        )
    length = min(described.max_positions, other.max_positions)
    return replace(described, architecture=other.architecture, max_positions=length)


@contextlib.contextmanager
def _world_of_one(config: RunConfig, device: Device) -> Iterator[Grid]:
    """The groups of a process that computes alone, gone when the block ends; those of a caller stay."""
    import torch.distributed as dist

    from megatron.layout import grid as grids

    if dist.is_initialized():
        yield grids.current()
        return
    try:
        yield grids.initialise(config.layout, device)
    finally:
        grids.shut_down()
