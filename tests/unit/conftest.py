"""What several packages' tests need and what takes seconds to make."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import pytest

from megatron.tokenization.options import TrainTokenizerOptions
from megatron.tokenization.train import train_to_files


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A unigram vocabulary of 1000 ids, learnt from Python's own manual."""
    prefix = tmp_path_factory.mktemp("vocabulary") / "topics"
    train_to_files(iter(topics.values()), TrainTokenizerOptions(output_prefix=str(prefix), vocab_size=1000))
    return prefix.with_suffix(".model")
