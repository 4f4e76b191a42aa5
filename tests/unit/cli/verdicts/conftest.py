"""Folders and runs that all tests of verdicts share."""

import shutil

import pytest
import transformers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from tests.oracles.one_process_model import one_process_grid
from tests.unit.cli.verdicts.verdict_cases import (
    KINDS,
    LENGTH,
    WORDS,
    add_our_code,
    convert,
    model_of,
)


@pytest.fixture(scope="package", autouse=True)
def modules_cache(tmp_path_factory):
    """Where transformers copies the code that it runs: not into the home of whoever tests."""
    one_process_grid()
    patch = pytest.MonkeyPatch()
    folder = str(tmp_path_factory.mktemp("modules"))
    patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", folder)
    patch.syspath_prepend(folder)
    yield
    patch.undo()


@pytest.fixture(scope="package")
def folders(tmp_path_factory):
    """A folder of each kind, as transformers saves it, with a vocabulary of bytes."""
    root = tmp_path_factory.mktemp("folders")
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    fast.train_from_iterator(["to be or not to be that is the question"] * 9, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    for kind in KINDS:
        model_of(kind).save_pretrained(root / kind, max_shard_size="20KB")
        tokenizer.save_pretrained(root / kind)
    add_our_code(root / "prefix")
    return root


@pytest.fixture(scope="package")
def runs(folders, tmp_path_factory):
    """The run folder of each kind."""
    root = tmp_path_factory.mktemp("runs")
    for kind in KINDS:
        convert("from-hf", folders / kind, root / kind, "--objective", "prefix_lm", "--seq-length", str(LENGTH))
    return root


@pytest.fixture(scope="package")
def export(runs, tmp_path_factory):
    """The causal model as it leaves."""
    folder = tmp_path_factory.mktemp("export") / "causal"
    convert("to-hf", runs / "causal", folder, "--no-verify")
    return folder


@pytest.fixture
def copied(export, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(export, tmp_path / "copied")
