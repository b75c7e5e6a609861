# Everything here needs only Python 3.11 or newer and make. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -c constraints.txt
CORE := $(VENV)/.installed-core
DEV := $(VENV)/.installed-dev
PARITY := $(VENV)/.installed-parity
PINS := pyproject.toml constraints.txt
# dev is a superset of core: where it is installed, the demo uses it.
RUNTIME := $(if $(wildcard $(DEV)),$(DEV),$(CORE))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test lint format parity bench clean

help:
	@echo "make demo     train on the digits, draw a grid of samples and measure them"
	@echo "make test     the tests"
	@echo "make lint     format, lint and types, checked"
	@echo "make format   format, and fix what can be fixed"
	@echo "make parity   the comparisons with other libraries (installs PyTorch)"
	@echo "make bench    the speed benchmark (installs PyTorch)"
	@echo "make clean    remove caches; runs/ and .venv/ stay"

venv: $(DEV)

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) not found. Name a Python: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "diffusion_jax needs Python 3.11 or newer; $(PYTHON) isn't: $$($(PYTHON) --version 2>&1)."; \
	    echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "== creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(CORE): $(PINS) | $(BIN)/python
	@echo "== installing diffusion_jax (a few minutes the first time)"
	@$(PIP) -e .
	@touch $@

$(DEV): $(PINS) | $(BIN)/python
	@echo "== installing diffusion_jax with its development tools (a few minutes the first time)"
	@$(PIP) -e '.[dev]'
	@touch $(CORE) $@

# PyTorch goes first, at its pin, so that no other package chooses a build of it. A build without
# CUDA is far smaller: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make parity
$(PARITY): $(PINS) $(DEV)
	@echo "== installing PyTorch, diffusers, transformers and torchmetrics (a few minutes the first time)"
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) -e '.[dev,parity]'
	@touch $@

demo: $(RUNTIME)
	@echo "== training on the digits: runs/digits"
	@$(BIN)/python train.py configs/digits.py --run-dir runs/digits
	@echo "== sampling and measuring: runs/digits/report"
	@$(BIN)/python benchmarks/digits_quality.py runs/digits --out runs/digits/report

test: $(DEV)
	@echo "== tests"
	@$(BIN)/python -m pytest -n 2 --dist loadscope --ignore=tests/parity $(ARGS)

lint: $(DEV)
	@echo "== format"
	@$(BIN)/ruff format --check .
	@echo "== lint"
	@$(BIN)/ruff check .
	@echo "== types"
	@$(BIN)/mypy

format: $(DEV)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

parity: $(PARITY)
	@echo "== comparisons with other libraries"
	@$(BIN)/python -m pytest -n 2 --dist loadscope tests/parity $(ARGS)

bench: $(PARITY)
	@echo "== speed"
	@$(BIN)/python benchmarks/speed.py $(ARGS)

clean:
	@rm -rf .pytest_cache .ruff_cache .mypy_cache build dist *.egg-info
	@find . -path ./$(VENV) -prune -o -path ./runs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
