"""Names for the words of a model that its tokenizer has no token for.

Many tables of words are longer than the vocabulary, so that their size divides well; their last rows are weights like
others, and take part in every softmax. With tokens of their own they come back out as they came in.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from megatron.basics.atomic_files import atomic_writer
from megatron.conversion.tokenizer_files import WHOLE


def name_unused_words(folder: Path, vocabulary_size: int) -> bool:
    """Give a tokenizer folder special tokens `<unused_N>` up to id vocabulary_size - 1: whether it could be done.

    No text becomes one of them. It cannot be done for a vocabulary that leaves out ids.
    """
    whole = folder / WHOLE
    fast = FastTokenizer.from_file(str(whole)) if whole.is_file() else _converted(folder)
    first = max(fast.get_vocab(with_added_tokens=True).values()) + 1
    names = {token: f"<unused_{token}>" for token in range(first, vocabulary_size)}
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names.values()])
    if any(fast.token_to_id(name) != token for token, name in names.items()):
        return False
    with atomic_writer(whole, "w") as file:
        file.write(fast.to_str(pretty=True))
    return True


def _converted(folder: Path) -> FastTokenizer:
    from transformers import AutoTokenizer  # seconds to import, and needed for folders of old alone

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False).backend_tokenizer
