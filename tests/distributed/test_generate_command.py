"""tools/generate.py from a run folder: the same text on every layout, and sentences for what cannot be."""

import json
import shutil
import subprocess
import sys

import pytest
from launch import ROOT, environment_for, first_traceback, torchrun

from megatron.basics.errors import UserError
from megatron.cli import generate
from megatron.cli.generate import main
from megatron.cli.written_texts import SEPARATOR

SCRIPT = str(ROOT / "tools" / "generate.py")
SETTINGS = ["--device", "cpu", "--max-new-tokens", "12", "--seed", "5"]
PROMPTS = ["the quick brown", "to be", "seven"]


@pytest.fixture(scope="module")
def run(tiny_corpus, entry_script, tmp_path_factory):
    """A run folder with checkpoints of iterations 5 and 10."""
    folder = tmp_path_factory.mktemp("generate") / "run"
    flags = tiny_corpus.flags(train_iters=10, save_interval=5, save=folder, bf16=True, lr=1e-2)
    command([entry_script, *flags])
    return folder


def command(words, **options):
    environment = environment_for({"CUDA_VISIBLE_DEVICES": ""})
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def alone(run):
    return command([SCRIPT, "--load", run, "--prompt", *PROMPTS, *SETTINGS])


@pytest.fixture(scope="module")
def earlier(run):
    """What the checkpoint of iteration 5 writes; the empty line begins a document of its own."""
    return command([SCRIPT, "--load", run, *SETTINGS, "--load-iteration", "5"], input="\n".join([*PROMPTS, "", ""]))


def test_each_prompt_goes_on(alone):
    texts = alone.rstrip("\n").split(f"\n{SEPARATOR}\n")
    assert len(texts) == 3
    for prompt, text in zip(PROMPTS, texts, strict=True):
        assert text.startswith(prompt) and len(text) > len(prompt)


@pytest.mark.parametrize(
    ("ranks", "layout"),
    [(4, ["--tensor-model-parallel-size", "2"]), (2, ["--pipeline-model-parallel-size", "2"])],
    ids=["TP2 DP2", "PP2"],
)
def test_every_layout_writes_the_same(ranks, layout, run, alone):
    words = ["--load", str(run), "--prompt", *PROMPTS, *SETTINGS, "--micro-batch-size", "2", *layout]
    done = torchrun(SCRIPT, *words, ranks=ranks)
    assert done.returncode == 0, first_traceback(done.stderr)
    assert done.stdout == alone


@pytest.mark.parametrize(
    ("script", "layout"),
    [
        pytest.param("pretrain_prefix_lm.py", ["--tensor-model-parallel-size", "2"], marks=pytest.mark.slow),
        ("pretrain_t5.py", ["--pipeline-model-parallel-size", "2"]),
    ],
    ids=["prefix decoder TP2", "encoder-decoder PP2"],
)
def test_other_architectures_write_too(script, layout, tiny_corpus, tmp_path):
    flags = tiny_corpus.flags(train_iters=5, save=tmp_path / "run", objective="prefix_lm", lr=1e-2)
    command([ROOT / script, *flags])
    words = ["--load", str(tmp_path / "run"), "--prompt", *PROMPTS, *SETTINGS, "--top-p", "0.9", "--top-k", "40"]
    alone = command([SCRIPT, *words])
    assert alone.count(SEPARATOR) == 2 and alone.startswith(PROMPTS[0])
    done = torchrun(SCRIPT, *words, *layout, ranks=2)
    assert done.returncode == 0, first_traceback(done.stderr)
    assert done.stdout == alone


def test_prompts_come_from_standard_input_and_any_checkpoint_can_write(run, alone, earlier):
    lines = "\n".join(PROMPTS)
    assert command([SCRIPT, "--load", run, *SETTINGS, "--load-iteration", "10"], input=lines) == alone
    assert earlier.count(SEPARATOR) == 3
    assert not earlier.startswith(alone)


def test_a_prompt_that_is_too_long_is_refused(run):
    with pytest.raises(UserError, match=r"number 2 .* do not fit the model's rows; shorten it to 21 tokens\."):
        main(["--load", str(run), "--prompt", "to be", "the " * 40, *SETTINGS])


def test_texts_go_into_a_file_line_by_line(run, alone, tmp_path, monkeypatch):
    """In two portions, whose texts are those of one; the second text ends where it would say this."""
    monkeypatch.setattr(generate, "PASSES_OF_A_PORTION", 1)
    texts = alone.rstrip("\n").split(f"\n{SEPARATOR}\n")
    behind = texts[1].removeprefix(PROMPTS[1])
    stop = behind[len(behind) // 2 :][:3]
    path = tmp_path / "new" / "texts.jsonl"
    words = ["--load", str(run), "--prompt", *PROMPTS, *SETTINGS, "--micro-batch-size", "2", "--stop", stop]
    main([*words, "--output-path", str(path)])
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["prompt"] for record in records] == PROMPTS
    assert records[1]["ended_by"] == "stop" and records[1]["tokens"] <= 12
    for prompt, text, record in zip(PROMPTS, texts, records, strict=True):
        assert record["text"] == text.removeprefix(prompt).partition(stop)[0]
    with pytest.raises(UserError, match="exists; name a new file"):
        main([*words, "--output-path", str(path)])


def refusal(*words):
    with pytest.raises(UserError) as raised:
        main([*words, "--device", "cpu", "--prompt", "to be"])
    return str(raised.value)


def test_what_cannot_be_is_told_in_a_sentence(run, tmp_path, monkeypatch):
    assert refusal("--load", str(tmp_path / "nowhere")).endswith("nowhere is not a folder; check the path.")
    assert "holds no complete checkpoint" in refusal("--load", str(tmp_path))
    assert "--load-iteration 7" in refusal("--load", str(run), "--load-iteration", "7")
    assert "start a multiple of 2 processes" in refusal("--load", str(run), "--tensor-model-parallel-size", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert "cannot split 2 layers evenly" in refusal("--load", str(run), "--pipeline-model-parallel-size", "3")
    assert "does not divide this model (2 heads" in refusal("--load", str(run), "--tensor-model-parallel-size", "3")


def test_another_tokenizer_is_refused(run, tmp_path):
    from megatron.tokenization.options import TrainTokenizerOptions
    from megatron.tokenization.train import train_tokenizer

    other = tmp_path / "other.model"
    options = TrainTokenizerOptions(output_prefix=str(tmp_path / "other"), vocab_size=380)
    other.write_bytes(train_tokenizer(["an entirely different text, in other words"] * 9, options))
    assert "is not the one that" in refusal("--load", str(run), "--tokenizer-model", str(other))


def test_a_damaged_checkpoint_is_refused(run, tmp_path):
    """As by a conversion: texts of another one than the newest should not be a surprise."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (shard,) = (copy / "iter_0000010").glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    sentence = refusal("--load", str(copy), "--max-new-tokens", "4")
    assert sentence.startswith(f"{shard} is damaged: ") and "name another checkpoint with --load-iter" in sentence


def test_help_needs_no_torch():
    program = (
        f"import runpy, sys; sys.argv = ['generate.py', '--help']; runpy.run_path({SCRIPT!r}, run_name='__main__')"
    )
    listing = "import atexit, sys; atexit.register(lambda: print('imported:', 'torch' in sys.modules)); "
    done = subprocess.run(
        [sys.executable, "-c", listing + program], cwd=ROOT, env=environment_for(), capture_output=True, text=True
    )
    assert done.returncode == 0 and "--max-new-tokens" in done.stdout
    assert done.stdout.splitlines()[-1] == "imported: False"
