# Every target works on a fresh checkout: it first brings .venv up to date, which takes no time when nothing changed.
# ACORN_PYTHON names the interpreter to make .venv with; ARGS is handed on to the command.

PYTHON := $(or $(ACORN_PYTHON),python3)
BIN := .venv/bin

# With no ARGS the whole suite runs, on several cores; a file's tests stay on one of them, so that they share what they
# build. Long files start first (tests/conftest.py). Measuring which lines are covered takes half as long again, so only
# test-all does.
WHOLE_SUITE := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
COVERAGE := --cov --cov-report=term:skip-covered --cov-fail-under=90

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all torture bench lint format docs dist lock clean moved

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

install: .venv/installed ## make .venv, with the versions of constraints.txt

demo: install ## train on the bundled WikiText-2 for about three minutes, score it, show text and curve
	@echo '== The demo =='
	$(BIN)/acorn demo $(ARGS)

test: install ## run the tests (ARGS="tests/model -x": only those)
	$(BIN)/python -m pytest $(or $(ARGS),$(WHOLE_SUITE))

test-all: .venv/all ## all tests with coverage, slow ones and those in llama.cpp too, which first compiles for some minutes
	$(BIN)/python -m pytest -m '' $(or $(ARGS),$(WHOLE_SUITE) $(COVERAGE))

torture: install ## try to make acorn lose a run, and servers fail, for hours (ARGS="--share 0.1": less)
	PYTHONPATH=tests $(BIN)/python -m torture $(ARGS)

bench: .venv/benchmarks ## measure acorn beside other programs, for a good hour (ARGS="train --rounds 3": less)
	$(BIN)/python -m benchmarks $(or $(ARGS),--json bench.json)

lint: install ## check style, types and import directions
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

format: install ## put the code into the project's style
	$(BIN)/python -m ruff check --fix-only
	$(BIN)/python -m ruff format

docs: install ## build the documentation into site/, where a broken link is an error
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --write-all docs site
	@echo 'Open site/index.html.'

dist: install ## build the wheel and the source archive of a release into dist/ (RELEASING.md)
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

lock: ## resolve constraints.txt anew (ARGS="--torch 2.13.0" moves PyTorch)
	"$(PYTHON)" tools/lock.py $(ARGS)

# What acorn is measured against. litgpt has an environment of its own, since it wants an older huggingface-hub; TRL and
# the servers have theirs, since nothing else needs them.
.venv/benchmarks: .venv/installed benchmarks/litgpt.txt benchmarks/serving.txt benchmarks/trl.txt
	@echo '== Installing the programs that acorn is measured beside, which takes some minutes the first time =='
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	"$(PYTHON)" -m venv --clear .venv-litgpt
	.venv-litgpt/bin/python -m pip install --disable-pip-version-check -r benchmarks/litgpt.txt
	"$(PYTHON)" -m venv --clear .venv-trl
	.venv-trl/bin/python -m pip install --disable-pip-version-check -c constraints.txt -r benchmarks/trl.txt
	"$(PYTHON)" -m venv --clear .venv-serving
	.venv-serving/bin/python -m pip install --disable-pip-version-check -c constraints.txt -r benchmarks/serving.txt
	@touch $@

.venv/all: .venv/installed
	@echo '== Installing what all tests need: llama.cpp is compiled, which takes some minutes the first time =='
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test-all]'
	@touch $@

clean: ## remove .venv, caches and build outputs; runs stay
	rm -rf .venv .venv-litgpt .venv-serving .venv-trl build dist site .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests tools -name __pycache__ -prune -exec rm -rf {} +

# The stamp holds the folder that .venv was made for: its scripts name it, so a copy or a moved checkout needs its own.
ifneq ($(shell cat .venv/installed 2>/dev/null),$(CURDIR))
ELSEWHERE := moved
endif

.venv/installed: pyproject.toml constraints.txt $(ELSEWHERE)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'acorn needs Python 3.11 or newer, and "$(PYTHON)" is not that.'; \
		echo 'Fix: name one that is, such as: make install ACORN_PYTHON=/usr/bin/python3.12'; exit 1; } >&2
	@echo '== Setting up .venv: pip installs PyTorch and the rest, which takes some minutes the first time =='
	"$(PYTHON)" -m venv $(if $(ELSEWHERE),--clear) .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@echo '== .venv is ready =='
	@printf '%s' "$(CURDIR)" > $@
