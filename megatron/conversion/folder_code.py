"""Whether a folder brings code, and whether that is the file that our own exports bring: no other is ever run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.basics.errors import UserError
from megatron.conversion.described_model import DescribedModel
from megatron.conversion.family import Family
from megatron.conversion.hf_folder import CONFIG
from megatron.conversion.tokenizer_files import CONFIG as TOKENIZER_CONFIG

AUTO_MAP = "auto_map"
WAY_OUT = "`from-hf --no-verify` converts the folder without loading it"
# Of a folder whose code is trusted transformers runs this as well, without being told by any entry.
OWN_GENERATION = "custom_generate"


def names_code(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether model or tokenizer of a folder ask for code that transformers does not bring itself."""
    return config.get(AUTO_MAP) is not None or bool(_tokenizer_code(folder / TOKENIZER_CONFIG))


def brings_our_code(folder: Path, config: dict[str, Any], family: Family, described: DescribedModel) -> bool:
    """Whether transformers has to run a file of the folder, byte for byte the one that exports of `family` have.

    Raises UserError for code of anybody else, for the model or for the tokenizer.
    """
    own = family.config(described).get(AUTO_MAP)
    named = config.get(AUTO_MAP)
    if named is not None and named != own:
        raise UserError(_refusal(folder / CONFIG))
    if _tokenizer_code(folder / TOKENIZER_CONFIG):
        raise UserError(_refusal(folder / TOKENIZER_CONFIG))
    if own is None:
        return False
    if named is None:
        raise UserError(
            f"{folder / CONFIG} has no {AUTO_MAP}, by which transformers finds the folder's class; export it again."
        )
    for name, text in family.files.items():
        try:
            is_ours = (folder / name).read_bytes() == text.encode()
        except OSError:
            is_ours = False
        if not is_ours:
            raise UserError(
                f"{folder / name} is not the file that this version exports, and no other is run; export the model "
                f"again, or {WAY_OUT}."
            )
    if (folder / OWN_GENERATION).exists():
        raise UserError(
            f"{folder / OWN_GENERATION} would be run by transformers, and none of our exports has it; remove it, or "
            f"{WAY_OUT}."
        )
    return True


def _tokenizer_code(path: Path) -> object:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):  # transformers says of the tokenizer what is wrong with it
        return None
    return content.get(AUTO_MAP) if isinstance(content, dict) else None


def _refusal(path: Path) -> str:
    return (
        f"{path} names code of the folder's own ({AUTO_MAP}), which is never run; remove the entry where transformers "
        f"has this class itself, or {WAY_OUT}."
    )
