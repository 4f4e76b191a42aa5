"""An exported folder as a model that answers prompts, by lm-eval's own class `hf`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance

from megatron.evaluation.answering_model import MOST_NEW_TOKENS
from megatron.evaluation.rank_classification import Ids, Pair


@dataclass(frozen=True)
class ExportedModel:
    """The model of an `HFLM`, which reads whatever its tokenizer puts around inputs; each choice is read by itself."""

    lm: Any

    @property
    def rule(self) -> str:
        """As lm-eval does it."""
        reader = "The encoder" if self._is_split else "The decoder, from left to right,"
        return f"{reader} reads inputs with what the folder's tokenizer puts around them (lm-eval's class hf)."

    def encode_inputs(self, texts: Sequence[str]) -> list[Ids]:
        """With the special tokens of the tokenizer's configuration."""
        return [np.array(self.lm.tok_encode(text) or [self.lm.prefix_token_id], np.int32) for text in texts]

    def encode_targets(self, texts: Sequence[str]) -> list[Ids]:
        """With the end token, and no other special one."""
        end = self.lm.eot_token_id
        return [np.array([*self.lm.tok_encode(text, add_special_tokens=False), end], np.int32) for text in texts]

    def longest_inputs(self, new_tokens: int) -> int:
        """What lm-eval's class does not cut: where both share a row the last token is never read."""
        if self._is_split:
            return int(self.lm.max_length) if new_tokens <= self.lm.max_length else 0
        return int(self.lm.max_length) + 1 - new_tokens

    def log_likelihoods(self, pairs: Sequence[Pair]) -> list[float]:
        """Every pair for itself."""
        requests = [((str(number), ""), [*inputs], [*rest]) for number, (inputs, rest) in enumerate(pairs)]
        return [
            float(value) for value, _ in self.lm._loglikelihood_tokens(requests, disable_tqdm=not sys.stderr.isatty())
        ]

    @property
    def new_tokens(self) -> int:
        """T0's length, and no more than a row, or half of one that inputs share."""
        row = int(self.lm.max_length)
        return min(MOST_NEW_TOKENS, row if self._is_split else row // 2)

    def write(self, texts: Sequence[str]) -> list[str]:
        """Greedily, up to the end token."""
        settings = {"until": [], "do_sample": False, "max_gen_toks": self.new_tokens}
        requests = [
            Instance("generate_until", doc={}, arguments=(text, settings), idx=number)
            for number, text in enumerate(texts)
        ]
        return [str(text) for text in self.lm.generate_until(requests, disable_tqdm=not sys.stderr.isatty())]

    @property
    def _is_split(self) -> bool:
        return str(self.lm.backend) == "seq2seq"
