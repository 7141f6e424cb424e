# make demo   train a small language model on Python's documentation, in about two minutes
# make test   the whole suite
# make lint   ruff and pyright
# make fuzz   the same properties for as long as FUZZ_SECONDS says
# make break  BREAK mutated and hostile specs: each must be answered within a second and 500 MB
.DEFAULT_GOAL := help
.PHONY: help demo test lint fuzz break

PYTHON ?= python3
BIN := .venv/bin
FUZZ_SECONDS ?= 600
BREAK ?= 20000

help:
	@grep -E '^# make' Makefile | sed 's/^# //'

# The environment is made again when what it is made from changes.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev,tensorboard]'
	@touch $@

demo: .venv/installed
	$(BIN)/partita train specs/recipes/docs_demo.partita --out out/demo

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: .venv/installed
	mkdir -p .pyright && ln -sfn .. .pyright/partita
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright --pythonpath $(BIN)/python

fuzz: .venv/installed
	timeout $(FUZZ_SECONDS) env HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest --numprocesses 2 --dist worksteal || test $$? -eq 124

break: .venv/installed
	cd tests && ../$(BIN)/python -m oracles.answers --count $(BREAK)
