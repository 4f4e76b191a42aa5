"""Names become classes when asked for, and not before."""

from __future__ import annotations

import sys

import pytest

from megatron.basics.errors import UserError
from megatron.basics.registry import Registry

TABLE = Registry("--shape", {"fraction": "fractions:Fraction", "ghost": "no.such.module:Ghost"})


def test_a_name_is_imported_when_asked_for() -> None:
    from fractions import Fraction

    assert TABLE["fraction"] is Fraction
    assert "no" not in sys.modules
    assert list(TABLE) == ["fraction", "ghost"]
    assert "ghost" in TABLE and "spirit" not in TABLE
    assert TABLE.location("ghost") == "no.such.module:Ghost"


def test_an_unknown_name_is_a_sentence() -> None:
    with pytest.raises(UserError) as caught:
        TABLE["fractoin"]
    assert str(caught.value) == "--shape fractoin is not known; did you mean fraction? Known: fraction, ghost."
