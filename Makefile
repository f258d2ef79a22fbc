# Each target creates .venv and installs by itself when needed; nothing else has to be set up.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test lint check fix golden clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    -c constraints.txt -e ".[dev]"
	touch $@

demo: $(INSTALLED)  ## derive, compile and verify sliding-window attention at Mistral-7B shapes
	$(BIN)/python examples/demo.py

test: $(INSTALLED)  ## every test, the slow ones included
	$(PYTEST)

lint: $(INSTALLED)  ## style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

check: lint  ## lint and the fast tests: the gate for every change
	$(PYTEST) -m "not slow" --hypothesis-profile=fast

fix: $(INSTALLED)  ## let ruff repair and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

golden: $(INSTALLED)  ## rewrite the golden files; review the diff
	$(PYTEST) --update-golden

clean:  ## remove everything that can be made again
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
