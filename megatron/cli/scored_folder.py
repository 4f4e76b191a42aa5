"""What a folder of Hugging Face has to be before lm-eval's own class may load it."""

from __future__ import annotations

from pathlib import Path

from megatron.basics.errors import RunFault, UserError
from megatron.cli.comparison import FolderSide
from megatron.conversion.folder_code import names_code
from megatron.conversion.hf_folder import HfFolder
from megatron.conversion.loaded_folder import tokenizer_ids
from megatron.conversion.tokenizer_files import holds_tokenizer


def check_scored_folder(path: Path) -> bool:
    """Whether transformers has to run code of the folder, which is that of our exports then, byte for byte.

    Raises UserError with every fault of its files, for code of anybody else, and for a tokenizer that does not load.
    Folders without code may be of any family that transformers has.
    """
    folder = HfFolder.open(path)
    with_code = names_code(path, folder.config) and FolderSide.open(path).with_code
    if not holds_tokenizer(path):
        raise UserError(f"--hf {path} holds no tokenizer; put the one it was trained with beside its weights.")
    try:
        tokenizer_ids(path, ["a text"], with_code=with_code)
    except RunFault as fault:
        raise UserError(str(fault)) from fault
    return with_code
