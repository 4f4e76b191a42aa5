"""Prompts that grow, as batches of the columns that a model has not read yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megatron.data.collate import collate
from megatron.device.device import Device
from megatron.evaluation.prompt_rows import PromptRows
from megatron.evaluation.stop_texts import Stop
from megatron.records.batch import Batch, Visibility
from megatron.records.row import EncoderRow, Row

Number = TypeVar("Number", bound=np.generic)


class GrowingRows:
    """Rows whose next tokens are predicted from one column, the last one read.

    Shorter prompts are padded in front, so that all rows are at the same column: then the distance of two columns is
    that of their positions. Padding sees nothing and is seen by nothing. Three prompts, and two tokens behind each:

        5 6 7 8 a d
        . . 5 6 b e
        . 5 6 7 c f

    stop(prompt, new tokens of a row): it has ended, as it has with the end token.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        prompt_rows: PromptRows,
        max_new_tokens: int,
        device: Device,
        stop: Stop,
    ) -> None:
        rows, firsts = zip(*map(prompt_rows.arrange, prompts), strict=True)
        self.end_token, self._stop, self._prompts = prompt_rows.rules.end_token, stop, prompts
        self.new_tokens: list[list[int]] = [[] for _ in prompts]
        self.ended = [False] * len(prompts)
        self._begin, self._end = 0, max(firsts) + 1
        inputs = max((_inputs_seen(row, first) for row, first in zip(rows, firsts, strict=True)), default=0)
        aligned = [
            _aligned(row, max(firsts) - first, max(firsts) + max_new_tokens, inputs)
            for row, first in zip(rows, firsts, strict=True)
        ]
        self._whole = collate(aligned).map(device.put)
        self._numbers = device.put(torch.arange(len(prompts)))

    def unread(self) -> Batch:
        """The columns that the model has not read: at first those of the prompts, then one at a time.

        Keys are all columns up to the last of these. An encoder's side is read with the prompts and empty afterwards,
        but for what the decoder sees of it. Logits are asked for at the last column, [b, 1, vocabulary].
        """
        whole, begin, end = self._whole, self._begin, self._end
        encoder = whole.encoder
        if encoder is not None:
            cross = encoder.cross_visibility
            kept = slice(None) if begin == 0 else slice(0)
            encoder = replace(
                encoder,
                tokens=encoder.tokens[:, kept],
                position_ids=encoder.position_ids[:, kept],
                cross_visibility=Visibility(cross.intervals[:, begin:end], cross.num_keys),
            )
        visibility = whole.visibility
        return Batch(
            tokens=whole.tokens[:, begin:end],
            labels=whole.labels[:, begin:end],
            loss_mask=whole.loss_mask[:, begin:end],
            position_ids=whole.position_ids[:, begin:end],
            visibility=Visibility(visibility.intervals[:, begin:end], end, visibility.is_causal and begin == 0),
            encoder=encoder,
            head_positions=torch.stack([torch.full_like(self._numbers, end - begin - 1), self._numbers]),
        )

    def append(self, chosen: Tensor) -> None:
        """Add one token, of int64 [b], to every row that has not ended; the others go on with what nobody reads."""
        for number, token in enumerate(chosen.tolist()):
            if not self.ended[number]:
                new_tokens = self.new_tokens[number]
                new_tokens.append(token)
                self.ended[number] = token == self.end_token or self._stop(self._prompts[number], new_tokens)
        self._begin, self._end = self._end, self._end + 1
        if self._begin < self._whole.tokens.shape[1]:  # else it was the last one
            self._whole.tokens[:, self._begin] = chosen


def _inputs_seen(row: Row, position: int) -> int:
    """Encoder positions that a decoder position sees."""
    return 0 if row.encoder is None else int(row.encoder.cross_intervals[position, 1])


def _aligned(row: Row, padding: int, length: int, inputs: int) -> Row:
    """`row` behind so many columns of padding, cut to `length` columns, its encoder's side to `inputs` positions."""
    encoder = row.encoder
    if encoder is not None:
        encoder = EncoderRow(
            tokens=encoder.tokens[:inputs],
            position_ids=encoder.position_ids[:inputs],
            intervals=encoder.intervals[:inputs],
            cross_intervals=_behind(padding, encoder.cross_intervals, length),
        )
    return Row(
        tokens=_behind(padding, row.tokens, length),
        labels=_behind(padding, row.labels, length),
        loss_mask=_behind(padding, row.loss_mask, length),
        position_ids=_behind(padding, row.position_ids, length),
        intervals=_behind(padding, row.intervals + np.int32(padding), length),
        encoder=encoder,
    )


def _behind(padding: int, values: NDArray[Number], length: int) -> NDArray[Number]:
    """`values` behind so many zeros, of `length` in all."""
    zeros = np.zeros((padding, *values.shape[1:]), values.dtype)
    return np.concatenate([zeros, values])[:length]
