"""The pages keep their promises: commands parse, links lead somewhere, tables list what is there."""

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from megatron.architectures.legal_pairs import legal_objectives
from megatron.architectures.registry import ARCHITECTURES
from megatron.basics import errors
from megatron.cli.run_config import parse_pretrain
from megatron.objectives.protocol import Objective
from megatron.objectives.registry import OBJECTIVES

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
README = (ROOT / "README.md").read_text()
NEVER_THERE = {"megatron/__init__.py"}  # named by the page that forbids it
COMMANDS_OF_LIBRARIES = {"lm_eval"}
NOT_FOR_USERS = {"make_environment.py"}  # a step of `make setup`


def commands_of(page: Path) -> list[str]:
    """The lines of its bash blocks, continued ones joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


COMMANDS = [(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands_of(page)]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def flags_of(script: str) -> set[str]:
    command = [sys.executable, ROOT / script, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # for those who test without `make setup`
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^  (--[a-z0-9-]+)", done.stdout, re.MULTILINE))


def check_flags(script: str, words: list[str]) -> None:
    unknown = {word.split("=")[0] for word in words if word.startswith("--")} - flags_of(script)
    assert not unknown, f"{script} has no {unknown}"


def check_pretraining(words: list[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The real parser accepts it, its files being there."""
    split = words.index("pretrain_gpt.py")
    processes = words[words.index("--nproc-per-node") + 1]
    arguments = words[split + 1 :]
    for flag, endings in (("--data-path", (".bin", ".idx")), ("--tokenizer-model", ("",))):
        for ending in endings:
            file = folder / (arguments[arguments.index(flag) + 1] + ending)
            file.parent.mkdir(exist_ok=True)
            file.touch()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WORLD_SIZE", processes)
    parse_pretrain(
        arguments,
        architecture="causal_decoder",
        default_objective="full_lm",
        legal_objectives=legal_objectives("causal_decoder"),
    )


@pytest.mark.parametrize("page, command", COMMANDS)
def test_commands_of_the_pages_exist_with_their_flags(page, command, monkeypatch, tmp_path):
    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
    if words[0] == "make":
        assert set(words[1:]) <= make_targets()
    elif "adapt.py" in words:  # what it does not say is in the run that it names
        check_flags("adapt.py", words[words.index("adapt.py") + 1 :])
    elif words[0] == "torchrun" and "pretrain_gpt.py" in words:
        check_pretraining(words, monkeypatch, tmp_path)
    elif words[0] == "torchrun":
        script = next(number for number, word in enumerate(words) if word.endswith(".py"))
        check_flags(words[script], words[script + 1 :])
    elif words[0] == "python":
        check_flags(words[1], words[2:])
    elif words[0].startswith("examples/"):
        assert (ROOT / words[0]).is_file()
        check_flags("pretrain_gpt.py", words[1:])
    elif words[0] in COMMANDS_OF_LIBRARIES:
        assert (ROOT / "requirements.txt").read_text().count(f"\n{words[0]}==") == 1
    else:
        assert words == [".", ".venv/bin/activate"], f"no rule checks {command}"


def test_the_check_of_commands_finds_a_wrong_flag():
    with pytest.raises(AssertionError, match="--vocab-sise"):
        check_flags("tools/train_tokenizer.py", ["--vocab-sise", "3"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_that_pages_name_exist(page):
    text = page.read_text()
    for path in re.findall(r"`((?:megatron|tests|tools|benchmarks|csrc|docs|examples)/[a-z0-9_./-]*\.[a-z]+)`", text):
        assert (ROOT / path).exists() != (path in NEVER_THERE), path


def test_every_page_of_docs_is_linked_from_another_page():
    linked = set()
    for page in PAGES:
        targets = [target for target in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in target]
        linked |= {(page.parent / target).resolve() for target in targets} - {page}
    for page in (ROOT / "docs").rglob("*.md"):
        assert {page, page.parent} & linked, f"no page links to {page.relative_to(ROOT)}"


def test_the_tree_of_contributing_has_every_package():
    tree = (ROOT / "CONTRIBUTING.md").read_text().split("## The tree")[1].split("##")[0]
    packages = {path.parent.name for path in (ROOT / "megatron").glob("*/__init__.py")}
    assert set(re.findall(r"`megatron/(\w+)/`", tree)) == packages
    scripts = [path.name for path in ROOT.glob("*.py") if path.name != "setup.py"]
    patterns = re.findall(r"`([\w*]+\.py)`", tree)
    assert not [name for name in scripts if not any(Path(name).match(pattern) for pattern in patterns)]


def test_the_layers_of_architecture_are_those_of_the_package():
    layers = (ROOT / "docs/architecture.md").read_text().split("## Layers")[1].split("A file imports")[0]
    packages = {path.parent.name for path in (ROOT / "megatron").glob("*/__init__.py")}
    assert packages - set(re.findall(r"\w+", layers)) == set()


def test_contributing_names_all_that_an_objective_must_have():
    page = (ROOT / "CONTRIBUTING.md").read_text().split("**An objective**")[1].split("**An architecture**")[0]
    members = {name for name in (*Objective.__annotations__, *vars(Objective)) if not name.startswith("_")}
    assert {"produces", "build", "size"} <= members
    assert members | {"__call__"} <= set(re.findall(r"`(\w+)[`(]", page))


def test_the_readme_lists_every_command_there_is():
    table = README.split("## Commands")[1].split("##")[0]
    scripts = {f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py") if path.name not in NOT_FOR_USERS}
    scripts |= {path.name for path in ROOT.glob("*.py") if path.name != "setup.py"}
    assert set(re.findall(r"`((?:tools/)?\w+\.py)`", table)) == scripts
    assert set(re.findall(r"`make ([a-z-]+)`", table)) <= make_targets()


def test_the_readme_gives_every_exit_code():
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")} - {errors.EXIT_FAULT}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)} == codes


def test_the_table_of_the_grid_is_what_the_program_allows():
    table = README.split("| objective |")[1].split("\n\n")[0]
    head, _, *rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]
    architectures = [{"encoder-decoder": "encoder_decoder"}.get(name, name.replace(" ", "_")) for name in head]
    assert set(architectures) == set(ARCHITECTURES)
    for objective, *cells in rows:
        for architecture, cell in zip(architectures, cells, strict=True):
            assert (cell == "yes") == (objective.strip("`") in legal_objectives(architecture)), (
                objective,
                architecture,
            )
    assert {objective.strip("`") for objective, *_ in rows} == set(OBJECTIVES)


def test_the_readme_describes_every_attention_backend():
    registry = (ROOT / "megatron/attention/registry.py").read_text()
    backends = set(re.findall(r'^        "(\w+)": "megatron\.attention', registry, re.MULTILINE))
    table = README.split("| attention backend |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == backends
