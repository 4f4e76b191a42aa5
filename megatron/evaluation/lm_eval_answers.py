"""An exported folder as a model that answers prompts, by lm-eval's own class `hf`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from megatron.basics.errors import RunFault, UserError
from megatron.basics.progress import progress
from megatron.evaluation.answering_model import MOST_NEW_TOKENS
from megatron.evaluation.rank_classification import Ids, Pair

PROBE = "a"  # any text shows what a tokenizer puts around it


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
        """Without special tokens: inputs that are cut have to keep them."""
        return [np.array(self._plain(text), np.int32) for text in texts]

    def encode_targets(self, texts: Sequence[str]) -> list[Ids]:
        """With the end token, and no other special one."""
        end = self.lm.eot_token_id
        return [np.array([*self._plain(text), end], np.int32) for text in texts]

    def longest_inputs(self, new_tokens: int) -> int:
        """What lm-eval's class does not cut: where both share a row the last token is never read."""
        around = sum(map(len, self._around))
        if self._is_split:
            return int(self.lm.max_length) - around if new_tokens <= self.lm.max_length else 0
        return int(self.lm.max_length) + 1 - new_tokens - around

    def log_likelihoods(self, pairs: Sequence[Pair]) -> list[float]:
        """Every pair for itself. Raises RunFault for values that are not finite: any choice would be the likeliest."""
        requests = [((str(number), ""), self._read(inputs), [*rest]) for number, (inputs, rest) in enumerate(pairs)]
        scored = self.lm._loglikelihood_tokens(requests, disable_tqdm=not sys.stderr.isatty())
        values = [float(value) for value, _ in scored]
        if not all(map(math.isfinite, values)):
            dtype = self.lm.model.dtype
            mend = "its weights are damaged" if dtype == torch.float32 else "use --dtype float32"
            raise RunFault(f"the model's log-likelihoods are not finite in {dtype}; {mend}.")
        return values

    @property
    def new_tokens(self) -> int:
        """T0's length, and no more than a row, or half of one that inputs share."""
        row = int(self.lm.max_length)
        return min(MOST_NEW_TOKENS, row if self._is_split else row // 2)

    def write(self, inputs: Sequence[Ids]) -> list[str]:
        """Greedily, up to the end token. lm-eval's class itself takes texts, of which the end would be another one."""
        read = [self._read(ids.tolist()) for ids in inputs]
        by_length = sorted(range(len(read)), key=lambda number: -len(read[number]))
        size = int(self.lm.batch_size)
        texts: dict[int, str] = {}
        with progress("write", len(read), "prompt") as bar:
            for first in range(0, len(read), size):
                numbers = by_length[first : first + size]
                texts |= zip(numbers, self._written([read[number] for number in numbers]), strict=True)
                bar.advance(len(numbers))
        return [texts[number] for number in range(len(read))]

    def _written(self, rows: Sequence[Sequence[int]]) -> Iterator[str]:
        """What the model writes behind each row, all of which go through it at once."""
        lm, width = self.lm, max(map(len, rows))
        tokens = torch.full((len(rows), width), int(lm.tokenizer.pad_token_id))
        mask = torch.zeros_like(tokens)
        for number, row in enumerate(rows):  # a decoder goes on where its row ends
            own = slice(0, len(row)) if self._is_split else slice(width - len(row), width)
            tokens[number, own], mask[number, own] = torch.tensor(row), 1
        found = lm._model_generate(
            tokens.to(lm.device),
            attention_mask=mask.to(lm.device),
            max_length=(1 if self._is_split else width) + self.new_tokens,
            stop=[lm.tok_decode(lm.eot_token_id, skip_special_tokens=False)],
            do_sample=False,
        )
        for ids in found[:, 1 if self._is_split else width :].tolist():  # behind the decoder's start token, or the row
            yield lm.tok_decode(ids[: ids.index(lm.eot_token_id)] if lm.eot_token_id in ids else ids)

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self.lm.tok_encode(text, add_special_tokens=False)
        return ids

    def _read(self, inputs: Sequence[int]) -> list[int]:
        """Inputs with what is around them; the model has to be given a token."""
        before, behind = self._around
        return [*before, *inputs, *behind] or [self.lm.prefix_token_id]

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """What the tokenizer, as lm-eval uses it, puts before inputs and behind them. Raises UserError."""
        whole, plain = self.lm.tok_encode(PROBE), self._plain(PROBE)
        if not plain:
            return whole, []
        for begin in range(len(whole) - len(plain) + 1):
            if whole[begin : begin + len(plain)] == plain:
                return whole[:begin], whole[begin + len(plain) :]
        raise UserError(
            f"--hf {self.lm.tokenizer.name_or_path}: its tokenizer makes other ids of {PROBE!r} with special tokens "
            "than without, so that inputs cannot be put between them; score the run itself with --load."
        )

    @property
    def _is_split(self) -> bool:
        return str(self.lm.backend) == "seq2seq"
