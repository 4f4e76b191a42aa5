"""A file imports its own package and those to the left of it; the numpy side and the torch side never meet."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.house.sources import PACKAGE, ROOT, dotted, imports_of, name_of, product_files, tree_of

NUMPY_SIDE = ("tokenization", "prompting", "data", "objectives")
TORCH_SIDE = ("attention", "modeling", "losses")
BELOW_BOTH = ("basics", "records", "device", "layout")
TRAINING = (*BELOW_BOTH, *NUMPY_SIDE, *TORCH_SIDE, "architectures", "checkpoint", "loop")
LAYER_5 = ("adaptation", "finetuning", "evaluation", "conversion")

# What a package may import of ours, beside itself.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "basics": (),
    "records": ("basics",),
    "device": ("basics", "records"),
    "layout": ("basics", "records", "device"),
    "tokenization": BELOW_BOTH,
    "prompting": (*BELOW_BOTH, "tokenization"),
    "data": (*BELOW_BOTH, "tokenization", "prompting", "objectives"),
    "objectives": BELOW_BOTH,
    "attention": BELOW_BOTH,
    "modeling": (*BELOW_BOTH, "attention"),
    "losses": (*BELOW_BOTH, "attention", "modeling"),
    "architectures": (*BELOW_BOTH, *NUMPY_SIDE, *TORCH_SIDE),
    "checkpoint": (*BELOW_BOTH, *NUMPY_SIDE, *TORCH_SIDE, "architectures"),
    "loop": TRAINING,
    **dict.fromkeys(LAYER_5, TRAINING),
    "study": (*TRAINING, *LAYER_5),
    "cli": (*TRAINING, *LAYER_5, "study"),
}
PACKAGE_FILES = [path for path in product_files() if path.is_relative_to(PACKAGE)]
MAY_NAME_CUDA = (PACKAGE / "device", ROOT / "benchmarks", ROOT / "setup.py")
NUMPY_FILES = [path for path in PACKAGE_FILES if path.parts[len(PACKAGE.parts)] in NUMPY_SIDE]


def package_of(module: str) -> str | None:
    """`loop` of megatron.loop.step; None for what is not ours."""
    parts = module.split(".")
    return parts[1] if parts[0] == "megatron" and len(parts) > 1 and parts[1] != "core" else None


def test_every_package_has_its_place() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert folders <= MAY_IMPORT.keys()


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=name_of)
def test_imports_point_to_the_left(path: Path) -> None:
    package = path.relative_to(PACKAGE).parts[0]
    for module, line in imports_of(path):
        imported = package_of(module)
        if imported is not None and imported != package:
            assert imported in MAY_IMPORT[package], f"{name_of(path)}:{line} imports {module}"


def test_options_need_the_standard_library_basics_and_other_options_alone() -> None:
    for path in PACKAGE.rglob("options.py"):
        for module, line in imports_of(path):
            ours = module.startswith("megatron.basics.") or module.split(".")[2:3] == ["options"]
            assert ours or module.split(".")[0] in sys.stdlib_module_names, f"{name_of(path)}:{line} imports {module}"


def test_basics_and_study_know_no_torch() -> None:
    for path in PACKAGE_FILES:
        if path.relative_to(PACKAGE).parts[0] in ("basics", "study"):
            modules = {module.split(".")[0] for module, _ in imports_of(path)}
            assert "torch" not in modules, name_of(path)


def test_the_numpy_side_needs_no_collectives_and_no_megatron_core() -> None:
    for path in NUMPY_FILES:
        for module, line in imports_of(path):
            assert not module.startswith("torch.distributed"), f"{name_of(path)}:{line}"
            if name_of(path) != "megatron/data/token_file.py":
                assert not module.startswith("megatron.core"), f"{name_of(path)}:{line}"


def test_libraries_of_one_place() -> None:
    for path in PACKAGE_FILES:
        for module, line in imports_of(path):
            library = module.split(".")[0]
            where = f"{name_of(path)}:{line} imports {module}"
            if library == "lm_eval":
                assert name_of(path).startswith("megatron/evaluation/lm_eval_"), where
            if library == "transformers":
                assert path.relative_to(PACKAGE).parts[0] in ("conversion", "tokenization"), where


def test_cuda_is_named_in_the_device_layer_alone() -> None:
    for path in product_files():
        if any(path.is_relative_to(place) for place in MAY_NAME_CUDA):
            continue
        for module, line in imports_of(path):
            assert not module.startswith("torch.cuda"), f"{name_of(path)}:{line}"
        for node in ast.walk(tree_of(path)):
            assert dotted(node) != "torch.cuda", f"{name_of(path)}:{getattr(node, 'lineno', 0)}"


def test_sub_packages_open_with_a_docstring_and_nothing_else() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        body = tree_of(path).body
        assert len(body) == 1 and ast.get_docstring(tree_of(path)), name_of(path)


def test_only_the_command_line_chooses_an_objective() -> None:
    """Everybody else knows the interface at most; the legal pairs are computed from both tables."""
    for path in PACKAGE_FILES:
        package = path.relative_to(PACKAGE).parts[0]
        if package in ("objectives", "cli") or name_of(path) == "megatron/architectures/legal_pairs.py":
            continue
        for module, line in imports_of(path):
            if package_of(module) == "objectives":
                assert module.startswith("megatron.objectives.protocol."), f"{name_of(path)}:{line} imports {module}"
