"""All that a resumed run needs, as one dataclass beside the tensors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from megatron.basics.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come. Data order, dropout and schedule are functions of these, so nothing else is stored.

    owes_validation: the run was told to stop where a validation was due, and saved first; its next start makes up.
    """

    iteration: int = 0
    consumed_samples: int = 0
    consumed_tokens: int = 0
    loss_tokens: int = 0
    skipped_steps: int = 0
    nonfinite_steps: int = 0
    nonfinite_in_a_row: int = 0
    owes_validation: bool = False

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What stands in a checkpoint beside tensors.

    run: the options of the run that wrote it (RunConfig.as_dict). lineage: what the weights were trained on so far,
    oldest first, e.g. [{"architecture": "causal_decoder", "objective": "full_lm", "tokens": 168000000000}].
    tokenizer: kind, fingerprint and sizes of the vocabulary. optimizer: scalar optimizer state (steps, loss scale).
    """

    progress: Progress
    run: dict[str, Any]
    tokenizer: dict[str, Any]
    lineage: list[dict[str, Any]]
    optimizer: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any], where: str) -> Contents:
        """Read back; raises UserError naming `where` when a field is missing."""
        try:
            progress = Progress(**content["progress"])
            return cls(progress=progress, **{name: content[name] for name in cls.__annotations__ if name != "progress"})
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{where} does not hold what a checkpoint holds ({error}); use another checkpoint."
            ) from error
