"""How an architecture cuts rows, from the data options."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RowRules:
    """How rows are cut, from the data options: lengths in tokens, and what documents in a row share.

    decoder_seq_length: of an encoder-decoder, whose encoder has `seq_length`. end_token: ends a document, and a
    complete example. start_token: what a decoder reads before the first target; with `begins_with_start_token` each
    example of a decoder-only row begins with it, too. pad_token fills rows.
    """

    seq_length: int
    end_token: int
    decoder_seq_length: int = 0
    start_token: int = 0
    pad_token: int = 0
    begins_with_start_token: bool = False
    reset_attention_mask: bool = False
    reset_position_ids: bool = False
    eod_mask_loss: bool = False
