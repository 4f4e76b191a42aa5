"""Which local split stands for which of those that a task of lm-eval names."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from megatron.prompting.data_sets import SPLITS


@dataclass(frozen=True)
class TaskSplits:
    """The splits that a task names, None where it has none. fewshot: of the examples in front of questions."""

    training: str | None
    validation: str | None
    test: str | None
    fewshot: str | None

    @classmethod
    def of(cls, configuration: Mapping[str, Any]) -> TaskSplits:
        """The splits of a definition as its file has it."""
        examples = configuration.get("fewshot_config")
        own = examples.get("split") if isinstance(examples, Mapping) else None
        roles = ("training_split", "validation_split", "test_split", "fewshot_split")
        training, validation, test, fewshot = (_plain(configuration.get(role)) for role in roles)
        return cls(training, validation, test, _plain(own) or fewshot)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that local splits may have: those of every task, whatever it calls them, then this one's own."""
        own = (self.test, self.validation, self.training, self.fewshot)
        return (*SPLITS, *dict.fromkeys(name for name in own if name and name not in SPLITS))

    def local(self, name: str | None, there: Container[str]) -> str | None:
        """The split of this name, or else of its role, such as `test` for a task whose test split is `test_r1`."""
        if name is None or name in there:
            return name
        roles = (
            (self.training, ("train",)),
            (self.validation, ("validation", "dev")),
            (self.test, ("test",)),
        )
        found = (local for own, locals_ in roles if own == name for local in locals_ if local in there)
        return next(found, None)

    def scored(self, there: Container[str]) -> str | None:
        """The split to score: the task's test split, else its validation split, else what there is of the two.

        A task without a test split of its own comes to `test` last, for others hide the answers.
        """
        order = ("test", "validation") if self.test else ("validation", "test")
        candidates = (self.local(self.test, there), self.local(self.validation, there), *order)
        return next((split for split in candidates if split and split in there), None)

    def settings(self, there: Container[str]) -> dict[str, str | None]:
        """The splits of the definition with those that are there in their place."""
        scored = self.scored(there)
        is_test = self.test is not None or scored == "test"  # lm-eval scores the test split of a task that has one
        validation = self.local(self.validation, there) or ("validation" if "validation" in there else None)
        return {
            "training_split": self.local(self.training, there) or ("train" if "train" in there else None),
            "validation_split": validation if is_test else scored,
            "test_split": scored if is_test else None,
            "fewshot_split": self.local(self.fewshot, there),
        }


def _plain(name: Any) -> str | None:
    return name if isinstance(name, str) and name and "/" not in name else None
