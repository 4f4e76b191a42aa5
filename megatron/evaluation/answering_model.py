"""A model that ranks choices and writes answers: what T0-Eval asks of it, and how one of ours does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from megatron.evaluation.options import GenerationOptions
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.rank_classification import Ids, Pair
from megatron.evaluation.score import Score
from megatron.evaluation.scored_rows import ScoreRequest
from megatron.evaluation.stop_texts import Stop
from megatron.tokenization.tokenizer import Tokenizer

MOST_NEW_TOKENS = 256  # T0's targets

ScoreFunction = Callable[[Sequence[ScoreRequest]], list[Score]]
GenerateFunction = Callable[[Sequence[Sequence[int]], GenerationOptions, Stop], list[list[int]]]


class AnsweringModel(Protocol):
    """Inputs and targets are texts of their own, each encoded by itself, as they are for training.

    Special tokens around inputs are the model's own affair: it adds them to ids that have been cut, and keeps room.
    """

    @property
    def rule(self) -> str:
        """How it reads inputs, in one sentence."""

    def encode_inputs(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text without special tokens, int32 [n]."""

    def encode_targets(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text with the end token behind it, int32 [n]."""

    def longest_inputs(self, new_tokens: int) -> int:
        """The most tokens of inputs that leave room for so many new ones; 0 or less where none does."""

    def log_likelihoods(self, pairs: Sequence[Pair]) -> list[float]:
        """The summed log-probabilities of the tokens of each pair's second part behind the first. May be collective."""

    @property
    def new_tokens(self) -> int:
        """How much it writes behind inputs, at most."""

    def write(self, inputs: Sequence[Ids]) -> list[str]:
        """What it writes behind inputs that fit, the likeliest token each time, to its end. May be collective."""


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint of ours; `score` and `generate` are collectives over every process of the model, bound to it."""

    score: ScoreFunction
    generate: GenerateFunction
    tokenizer: Tokenizer
    prompt_rows: PromptRows
    micro_batch_size: int

    @property
    def rule(self) -> str:
        """How it reads inputs: as in training."""
        return self.prompt_rows.rule

    def encode_inputs(self, texts: Sequence[str]) -> list[Ids]:
        """Without special tokens: rows add what training had."""
        return self.tokenizer.encode_batch([*texts])

    def encode_targets(self, texts: Sequence[str]) -> list[Ids]:
        """With the end token."""
        end = np.array([self.tokenizer.eod_id], np.int32)
        return [np.concatenate([ids, end]) for ids in self.tokenizer.encode_batch([*texts])]

    def longest_inputs(self, new_tokens: int) -> int:
        """What a row holds."""
        return self.prompt_rows.longest_prompt(new_tokens)

    def log_likelihoods(self, pairs: Sequence[Pair]) -> list[float]:
        """A collective; what several pairs have in common is read once."""
        return [found.log_likelihood for found in self.score([ScoreRequest(*pair) for pair in pairs])]

    @property
    def new_tokens(self) -> int:
        """T0's length; where inputs share their row at most half of it."""
        room = self.prompt_rows.architecture.room(self.prompt_rows.rules)
        return min(MOST_NEW_TOKENS, room.targets if room.is_split else room.total // 2)

    def write(self, inputs: Sequence[Ids]) -> list[str]:
        """A collective."""
        options = GenerationOptions(
            max_new_tokens=self.new_tokens, temperature=0.0, micro_batch_size=self.micro_batch_size
        )
        prompts = [self.prompt_rows.prompt(ids.tolist()) for ids in inputs]
        written = self.generate(prompts, options, lambda *_: False)
        return [self.tokenizer.decode(tokens) for tokens in written]
