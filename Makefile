# Every target does its own set-up. PYTHON=... names the interpreter to start from; TESTS=... and PYTEST_FLAGS=... narrow
# a test run, e.g. `make test TESTS=tests/unit/data PYTEST_FLAGS=-x`.

SHELL := /bin/sh
BIN := .venv/bin
TESTS ?= tests
PYTEST_FLAGS ?=
# One worker for the jobs of several processes, one for all else.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# On a GPU machine that cannot reach a package index, the installed Python with its own torch does.
GPU_PYTHON := $(or $(PYTHON),$(if $(wildcard $(BIN)/python),$(BIN)/python,python3))
CPP_FILES := $$(find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
PROSE := *.md $(wildcard *.py) csrc docs benchmarks examples megatron tools

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-all gpu-check lint format clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

setup: ## Make .venv with the pinned packages and build csrc/; does nothing when nothing changed
	@python=$$(PYTHON="$(PYTHON)" tools/find_python.sh) && "$$python" tools/make_environment.py

quickstart: setup ## Corpus, tokenizer, training on two processes, resume on another layout, plot, sample
	@examples/quickstart/run.sh

test: setup lint ## Checks, then every test that is neither slow nor needs a GPU
	$(PYTEST) $(TESTS) -m "not slow and not gpu" $(PYTEST_FLAGS)

test-all: setup lint ## As test, with the slow ones
	$(PYTEST) $(TESTS) -m "not gpu" $(PYTEST_FLAGS)

gpu-check: ## On a machine with an NVIDIA GPU: build, test, train and measure there; needs no network
	PYTHONPATH=".$${PYTHONPATH:+:$$PYTHONPATH}" $(GPU_PYTHON) benchmarks/gpu_check.py

lint: setup ## Style, spelling, types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)
	$(BIN)/codespell $(PROSE)
	$(BIN)/mypy

format: setup ## Lay out Python and C++ in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

clean: ## Remove what was built; .venv and runs stay
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis megatron/*/*.so
	find megatron tests tools benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
