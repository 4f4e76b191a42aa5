"""examples/multitask_offline/run.sh starts legal runs, in an order that works: run with stand-ins for its commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from megatron.architectures.legal_pairs import legal_objectives
from megatron.architectures.weights import count_parameters
from megatron.cli.figures import model_shape
from megatron.cli.flags import parse
from megatron.cli.flags_page import COMMANDS
from megatron.cli.run_config import SECTIONS, parse_pretrain
from megatron.prompting.mixture import read_mixture

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = Path("examples/multitask_offline")
# Each word on a line of its own; a line of = ends a command.
STAND_INS = {
    "torchrun": '#!/bin/sh\nprintf "%s\\n" "$@" = >> "$TORCHRUN_WORDS"\n',
    "python": '#!/bin/sh\nprintf "%s\\n" "$@" = >> "$PYTHON_WORDS"\necho "$NUMBER_OF_GPUS"\n',
}


class Chain:
    """The script in a copy of its folder, where no environment stands before the stand-ins."""

    def __init__(self, folder: Path) -> None:
        root = folder / "check out"  # with spaces: it quotes
        shutil.copytree(ROOT / EXAMPLE, root / EXAMPLE)
        self.script = root / EXAMPLE / "run.sh"
        self.out = folder / "out put"
        self.words = folder / "words"
        self.python_words = folder / "python words"
        commands = folder / "commands"
        commands.mkdir()
        for name, text in STAND_INS.items():
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        self.environment = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "TORCHRUN_WORDS": str(self.words),
            "PYTHON_WORDS": str(self.python_words),
            "DATA": "data",
            "TEMPLATES": "templates",
            "NUMBER_OF_GPUS": "4",
        }

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.script, str(self.out)],
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def commands(self, **variables: str) -> list[tuple[str, list[str]]]:
        """Script and arguments of each torchrun, in order."""
        for words in (self.words, self.python_words):
            words.unlink(missing_ok=True)
        for name in ("corpus/tasks.jsonl", "corpus/train.jsonl", "wordnet/corpus.jsonl"):
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
            (self.out / name).write_text(f'{{"text": "as python makes {name}"}}\n')
        done = self.run(**variables)
        assert done.returncode == 0, done.stderr
        found = []
        for words in commands_in(self.words):
            assert words[:2] == ["--standalone", "--nproc-per-node"]
            found.append((Path(words[3]).name, words[4:]))
        return found

    def steps_on_data(self) -> list[tuple[str, list[str]]]:
        """Script and arguments of each python in the last run, in order."""
        return [(Path(words[0]).name, words[1:]) for words in commands_in(self.python_words) if words[0] != "-c"]

    def make_inputs(self) -> None:
        for name in ("tokenizer.model", *(f"tokens/{ends}_ends_text_document" for ends in ("with", "without"))):
            path = self.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            for suffix in ("", ".bin", ".idx"):
                Path(f"{path}{suffix}").touch()


def commands_in(words: Path) -> list[list[str]]:
    return [command.splitlines() for command in words.read_text().removesuffix("=\n").split("\n=\n")]


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def value(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


@pytest.mark.parametrize("size", ["laptop", "gpu"])
def test_training_on_text_is_legal_and_of_the_sizes_that_are_named(
    chain: Chain, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    chain.make_inputs()
    header = chain.script.read_text().split("set -e")[0]
    trained = dict(chain.commands(SIZE=size))
    arguments = trained["pretrain_gpt.py"]
    config = parse_pretrain(
        arguments,
        architecture="causal_decoder",
        default_objective="full_lm",
        legal_objectives=legal_objectives("causal_decoder"),
    )
    assert config.objective == "full_lm" and config.layout.device == {"laptop": "cpu", "gpu": "cuda"}[size]
    named = re.search(
        r"^# A decoder of ([\d.]+) million .* vocabulary of ([\d,]+)", Path(value(arguments, "--config")).read_text()
    )
    assert named
    assert value(trained["adapt.py"], "--objective") in legal_objectives("encoder_decoder")
    for architecture in ("causal_decoder", value(trained["adapt.py"], "--to")):
        shape = model_shape(replace(config, architecture=architecture), int(named[2].replace(",", "")))
        millions = count_parameters(shape).total / 1e6
        if architecture == "causal_decoder":
            assert millions == pytest.approx(float(named[1]), rel=0.01)
        assert re.search(rf"\b{re.escape(f'{millions:.1f}' if size == 'laptop' else f'{millions:.0f}')}\b", header)


def test_every_model_is_scored_before_and_after(chain: Chain) -> None:
    done = [
        (script, Path(value(arguments, "--load" if script == "evaluate.py" else "--save")).name)
        for script, arguments in chain.commands()
    ]
    assert done == [
        ("pretrain_gpt.py", "cd_flm"),
        *[("evaluate.py", "cd_flm")] * 2,
        ("adapt.py", "ed_mlm"),
        *[("evaluate.py", "ed_mlm")] * 2,
        ("finetune_t0.py", "cd_mtf"),
        *[("evaluate.py", "cd_mtf")] * 2,
        ("finetune_t0.py", "nd_mtf"),
        *[("evaluate.py", "nd_mtf")] * 2,
        ("finetune_t0.py", "ed_mtf"),
        *[("evaluate.py", "ed_mtf")] * 2,
    ]


@pytest.mark.parametrize("size", ["laptop", "gpu"])
@pytest.mark.parametrize("source", ["olmo", "wordnet"])
def test_every_command_has_flags_that_are_known(chain: Chain, size: str, source: str) -> None:
    (chain.out / "tasks").mkdir(parents=True)
    (chain.out / "tasks" / "data.yaml").write_text("train_data_path: [a]\nvalid_data_path: [a]\n")
    done = chain.commands(SIZE=size, SOURCE=source, WORDNET="wordnet") + chain.steps_on_data()
    known = {Path(script).name: command for command in COMMANDS for script in command.scripts}
    for script, arguments in done:
        if script in known and script != "pretrain_gpt.py":  # which has a test of its own
            parse(arguments, known[script].sections | (SECTIONS if known[script].takes_run_settings else {}))
    assert {script for script, _ in done if script in known} == {
        "train_tokenizer.py",
        "preprocess_data.py",
        "prepare_tasks.py",
        "pretrain_gpt.py",
        "adapt.py",
        "finetune_t0.py",
        "evaluate.py",
        "compare_evaluations.py",
    }
    corpus = {"olmo": ["stdlib_corpus.py", "task_corpus.py"], "wordnet": ["stdlib_corpus.py"]}  # wordnet's is made
    assert [script for script, _ in done if script not in known] == corpus[source]


def test_what_is_trained_on_is_made_before_training_and_as_long_as_the_shortest_rows(chain: Chain) -> None:
    finetuned = [arguments for script, arguments in chain.commands() if script == "finetune_t0.py"]
    steps = chain.steps_on_data()
    assert [script for script, _ in steps] == [
        "stdlib_corpus.py",
        "task_corpus.py",
        "train_tokenizer.py",
        "preprocess_data.py",
        "preprocess_data.py",
        "prepare_tasks.py",
        *["compare_evaluations.py"] * 8,
    ]
    compared = [arguments for script, arguments in steps if script == "compare_evaluations.py"]
    runs = [[Path(word).parent.name for word in arguments if word.endswith("results.json")] for arguments in compared]
    pairs = [["cd_flm", "cd_mtf"], ["cd_flm", "nd_mtf"], ["ed_mlm", "ed_mtf"]]
    assert runs[::2] == runs[1::2] == [*pairs, ["cd_flm", "cd_mtf", "nd_mtf", "ed_mlm", "ed_mtf"]]
    with_ends, without_ends = (arguments for script, arguments in steps if script == "preprocess_data.py")
    assert "--append-eod" in with_ends and "--append-eod" not in without_ends
    assert (
        value(with_ends, "--input")
        == value(without_ends, "--input")
        == value(dict(steps)["train_tokenizer.py"], "--input")
    )
    made_of = [(chain.out / "corpus" / name).read_text() for name in ("tasks.jsonl", "train.jsonl")]
    assert sorted(Path(value(with_ends, "--input")).read_text().splitlines(True)) == sorted(made_of)
    prepared = dict(steps)["prepare_tasks.py"]
    inputs, targets = (int(value(prepared, f"--max-{part}-length")) for part in ("input", "target"))
    decoders, encoder_decoder = finetuned[:2], finetuned[2]
    assert {value(arguments, "--seq-length") for arguments in decoders} == {str(inputs + targets)}
    assert value(encoder_decoder, "--seq-length") == str(inputs)
    assert value(encoder_decoder, "--decoder-seq-length") == str(targets)


@pytest.mark.parametrize(("size", "file"), [("laptop", "laptop/mixture.yaml"), ("gpu", "mixture.yaml")])
def test_a_small_model_trains_on_the_same_data_sets_by_fewer_prompts(chain: Chain, size: str, file: str) -> None:
    chain.commands(SIZE=size, MODELS="cd", PROCESSES="1")
    (mixture,) = {value(words, "--mixture") for _, words in chain.steps_on_data() if "--mixture" in words}
    assert mixture == str(chain.script.parent / file)
    whole, own = read_mixture(str(ROOT / EXAMPLE / "mixture.yaml")), read_mixture(mixture)
    assert [entry.data_set for entry in own.data_sets] == [entry.data_set for entry in whole.data_sets]
    assert own.held_out == whole.held_out
    is_small = size == "laptop"
    assert (own.cap < whole.cap) == is_small
    assert {entry.templates for entry in own.data_sets} == {"original" if is_small else "all"}
    assert {words[2] for words in commands_in(chain.words)} == {"1"}


@pytest.mark.parametrize(
    ("size", "device", "processes"), [("laptop", "cpu", {"2"}), ("gpu", "cuda", {"4"})], ids=["laptop", "gpu"]
)
def test_all_steps_are_on_the_device_and_the_processes_of_their_size(
    chain: Chain, size: str, device: str, processes: set[str]
) -> None:
    done = chain.commands(SIZE=size)
    assert {words[2] for words in commands_in(chain.words)} == processes
    for script, arguments in done:
        if script != "pretrain_gpt.py":  # whose configuration names it
            assert value(arguments, "--device") == device


def test_a_prefix_decoder_goes_on_from_a_causal_one(chain: Chain) -> None:
    commands = dict(chain.commands(MODELS="nd", FINETUNE_STEPS="7"))
    assert set(commands) == {"pretrain_gpt.py", "finetune_t0.py", "evaluate.py"}
    finetuned = commands["finetune_t0.py"]
    assert value(finetuned, "--load") == str(chain.out / "cd_flm")
    assert value(finetuned, "--to") == "prefix_decoder" and value(finetuned, "--train-iters") == "7"


def test_scores_are_made_again_after_training_or_with_another_limit(chain: Chain) -> None:
    scored = [arguments for script, arguments in chain.commands(MODELS="cd", LIMIT="20") if script == "evaluate.py"]
    assert {value(arguments, "--limit") for arguments in scored} == {"20"}
    for model in ("cd_flm", "cd_mtf"):
        (chain.out / model).mkdir()
        (chain.out / model / "latest_checkpointed_iteration.txt").touch()
        os.utime(chain.out / model / "latest_checkpointed_iteration.txt", (1e9, 1e9))
    for arguments in scored:
        results = Path(value(arguments, "--output-path")) / "results.json"
        results.parent.mkdir(parents=True)
        results.touch()

    def number_of_scorings(limit: str) -> int:
        return [script for script, _ in chain.commands(MODELS="cd", LIMIT=limit)].count("evaluate.py")

    assert len(scored) == 4 and number_of_scorings("20") == 0
    os.utime(chain.out / "cd_mtf" / "latest_checkpointed_iteration.txt", (1e10, 1e10))
    assert number_of_scorings("20") == 2
    assert number_of_scorings("") == 4


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"SIZE": "large"}, "SIZE=large is not known; set it to laptop or gpu."),
        ({"SOURCE": "hub"}, "SOURCE=hub is not known; set it to olmo or wordnet."),
        ({"MODELS": "cd bert"}, "MODELS has bert, which is not known; name some of cd, nd and ed."),
        ({"PROCESSES": "3"}, "PROCESSES=3 does not divide the rows of a step of SIZE=laptop"),
        ({"SIZE": "gpu", "PROCESSES": "two"}, "PROCESSES=two does not divide the rows of a step of SIZE=gpu"),
        ({"SIZE": "gpu", "PROCESSES": "8"}, "PROCESSES=8 is more than the GPUs of this machine; set it to at most 4."),
        ({"SOURCE": "wordnet"}, "set WORDNET to the folder with data.noun"),
        ({"SIZE": "gpu", "NUMBER_OF_GPUS": "0"}, "PyTorch sees no GPU here"),
        ({"SIZE": "gpu", "NUMBER_OF_GPUS": "3"}, "PROCESSES=3 does not divide the rows of a step of SIZE=gpu"),
    ],
)
def test_what_it_does_not_know_stops_it_before_anything_is_written(
    chain: Chain, variables: dict[str, str], words: str
) -> None:
    done = chain.run(**variables)
    assert done.returncode and words in done.stderr
    assert not chain.out.exists() and not chain.words.exists()
