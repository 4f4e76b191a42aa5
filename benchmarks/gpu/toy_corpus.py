"""A corpus and a vocabulary made on the spot: nothing is fetched, no tokenizer is trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from megatron.data.token_file_writer import token_dtype, token_file_writer
from megatron.tokenization.tokenizer import load_tokenizer

WORDS, DOCUMENT = 255, 500
END = "</s>"


def write_vocabulary(folder: Path, size: int = WORDS) -> Path:
    """A Hugging Face tokenizer folder of so many words and an end of document."""
    folder.mkdir(parents=True, exist_ok=True)
    words = {f"w{number}": number for number in range(size)}
    special = {"id": size, "content": END, "special": True}
    special |= {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {**words, END: size}, "unk_token": "w0"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    return folder


def write_corpus(prefix: Path, vocabulary: Path, tokens: int) -> Path:
    """PREFIX.bin and .idx: each word follows from the one before it but for two random bits, so that a model learns."""
    tokenizer = load_tokenizer("HuggingFaceTokenizer", str(vocabulary))
    documents = tokens // DOCUMENT
    surprise = np.random.default_rng(0).integers(0, 4, (documents, DOCUMENT))
    ids = np.empty((documents, DOCUMENT), np.int64)
    ids[:, 0] = surprise[:, 0]
    for position in range(1, DOCUMENT):
        ids[:, position] = (5 * ids[:, position - 1] + 1 + surprise[:, position]) % WORDS
    ids[:, -1] = WORDS
    dtype = token_dtype(tokenizer.vocabulary_size)
    with token_file_writer(str(prefix), dtype) as writer:
        writer.append(ids.ravel().astype(dtype), np.full(documents, DOCUMENT, np.int32))
        writer.seal(tokenizer, WORDS)
    return prefix
