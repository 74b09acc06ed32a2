# One environment, .venv, made by whichever target is asked for first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: env demo test test-all gpu clean

env: $(VENV)/.core

$(VENV)/.core: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "retroprop needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: env
	$(BIN)/retroprop ablate

test: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m 'not slow' -n 2

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2

# On a machine with a CUDA device and its own torch: every check that waits for one.
gpu:
	PYTHONPATH=src:. $(PYTHON) -m pytest -m cuda
	PYTHONPATH=src:. $(PYTHON) -m benchmarks.gpu

clean:
	rm -rf $(VENV) dist build
