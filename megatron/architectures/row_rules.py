"""How an architecture cuts rows, from the data options."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RowRules:
    """How rows are cut, from the data options: lengths in tokens, and what documents in a row share.

    end_of_document: the token id that ends a document.
    """

    seq_length: int
    end_of_document: int
    reset_attention_mask: bool = False
    reset_position_ids: bool = False
    eod_mask_loss: bool = False
