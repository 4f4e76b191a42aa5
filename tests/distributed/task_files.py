"""A small data set of inputs and targets."""

from pathlib import Path

import numpy as np
from conftest import WORDS, TinyCorpus

from megatron.data.token_file_writer import token_dtype, token_file_writer
from megatron.tokenization.tokenizer import load_tokenizer


def write_task(corpus: TinyCorpus, prefix: Path, examples: int) -> str:
    """Sentences to be answered with one of their words: the files of a data set."""
    tokenizer = load_tokenizer("SentencePieceTokenizer", corpus.tokenizer)
    dtype = token_dtype(tokenizer.vocabulary_size)
    told = " ".join(WORDS).split()
    rng = np.random.default_rng(examples)
    texts = [" ".join(rng.choice(told, rng.integers(2, 9))) for _ in range(examples)]
    for suffix, side in (("_inputs", texts), ("_targets", [text.split()[-1] for text in texts])):
        with token_file_writer(f"{prefix}{suffix}", dtype) as writer:
            tokens = [part.astype(dtype) for part in tokenizer.encode_batch(side)]
            writer.append(np.concatenate(tokens), np.array([len(part) for part in tokens], np.int32))
            writer.seal(tokenizer, None)
    return str(prefix)
