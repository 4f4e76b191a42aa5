"""A corpus that fits a test: tokens, tokenizer, and the flags of a model that trains on them in seconds."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from launch import ROOT
from trainer import Trainer

WORDS = ("the quick brown fox jumps over a lazy dog while seven old wizards judge my vow", "to be or not to be")


@dataclass(frozen=True)
class TinyCorpus:
    prefix: str
    tokenizer: str

    def flags(self, **changed: object) -> list[str]:
        """pretrain_gpt.py flags: one value a flag, True for a switch, None leaves one out."""
        flags = {
            "num_layers": 2,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "seq_length": 32,
            "micro_batch_size": 2,
            "global_batch_size": 4,
            "lr": 1e-3,
            "hidden_dropout": 0.1,
            "attention_dropout": 0.1,
            "eval_iters": 0,
            "data_path": self.prefix,
            "tokenizer_model": self.tokenizer,
            "device": "cpu",
            **changed,
        }
        words = []
        for name, value in flags.items():
            if value is not None and value is not False:
                words += ["--" + name.replace("_", "-")] + ([] if value is True else str(value).split())
        return words


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory) -> TinyCorpus:
    from megatron.data.token_file_writer import token_dtype, token_file_writer
    from megatron.tokenization.options import TrainTokenizerOptions
    from megatron.tokenization.tokenizer import load_tokenizer
    from megatron.tokenization.train import train_tokenizer

    folder: Path = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    words = " ".join(WORDS).split()
    texts = [" ".join(rng.choice(words, 60)) for _ in range(120)]
    model = folder / "tok.model"
    model.write_bytes(train_tokenizer(texts, TrainTokenizerOptions(output_prefix=str(folder / "tok"), vocab_size=400)))
    tokenizer = load_tokenizer("SentencePieceTokenizer", str(model))
    dtype = token_dtype(tokenizer.vocabulary_size)
    prefix = str(folder / "text_document")
    with token_file_writer(prefix, dtype) as writer:
        for tokens in tokenizer.encode_batch(texts):
            document = np.append(tokens, tokenizer.eod_id).astype(dtype)
            writer.append(document, np.array([len(document)], np.int32))
        writer.seal(tokenizer, tokenizer.eod_id)
    return TinyCorpus(prefix, str(model))


@pytest.fixture(scope="session")
def entry_script() -> str:
    return str(ROOT / "pretrain_gpt.py")


@pytest.fixture(scope="session")
def trainer(tmp_path_factory) -> Iterator[Trainer]:
    trainer = Trainer(tmp_path_factory.mktemp("jobs"))
    yield trainer
    trainer.close()
