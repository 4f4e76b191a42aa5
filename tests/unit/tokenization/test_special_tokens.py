from __future__ import annotations

import pytest

from megatron.basics.errors import UserError
from megatron.records.special_tokens import SpecialTokens
from megatron.tokenization.special_tokens import FIM_SPELLINGS, MODE_SPELLINGS, find_all, find_sentinels


def test_sentinels_end_at_the_first_gap() -> None:
    vocabulary = {"<extra_id_0>": 9, "<extra_id_1>": 8, "<extra_id_3>": 6}
    assert find_sentinels(vocabulary.get) == (9, 8)


@pytest.mark.parametrize("spelling", ["<fim_{}>", "<|fim_{}|>", "<fim-{}>"])
def test_fim_tokens_are_found_as_code_models_spell_them(spelling: str) -> None:
    """StarCoder, Qwen2.5-Coder and SantaCoder; ids in the order of a vocabulary that has the suffix first."""
    vocabulary = {spelling.format(part): token for token, part in enumerate(["suffix", "middle", "prefix"], start=40)}
    assert find_all(vocabulary.get, *FIM_SPELLINGS) == (42, 41, 40)


def test_names_count_only_together() -> None:
    """`[X]` alone is a piece of text, as in a list of things done."""
    assert find_all({"[X]": 7, "[S]": 8}.get, *MODE_SPELLINGS) == ()


def test_mode_tokens_are_found_as_hugging_face_spells_them() -> None:
    """In google/ul2 [NLU] stands for regular, [S2S] for sequential and [NLG] for extreme denoising."""
    assert find_all({"[NLU]": 5, "[NLG]": 6, "[S2S]": 7}.get, *MODE_SPELLINGS) == (5, 7, 6)


def test_id_outside_of_the_vocabulary_is_refused() -> None:
    with pytest.raises(UserError, match=r"m\.model names special token 10, but its vocabulary ends at 9"):
        SpecialTokens(end=1, mask=10).check(10, "m.model")


def test_shared_sentinel_is_refused() -> None:
    with pytest.raises(UserError, match="same id"):
        SpecialTokens(end=1, sentinels=(5, 5)).check(10, "m.model")


def test_one_id_may_end_and_pad() -> None:
    SpecialTokens(end=1, pad=1, separator=1).check(10, "m.model")
