# The commands of this project. They need Python 3.10 or newer, git and make; the rest goes into .venv,
# what the lowest supported Airflow needs into .venv-lowest, and what has the official provider beside ours into .venv-both.

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest e2e e2e-lowest coexistence bench lint types layers package clean
MAKEFLAGS += --no-print-directory

# The first Python that is new enough. PYTHON=… on the command line chooses another.
NEW_ENOUGH := import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && { echo $$python; break; }; done)
BIN := .venv/bin

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: .venv/.stamp-run  ## run a simulated Airbyte, the listener and a real Airflow, and show a pushed task
	@$(BIN)/python deploy/demo/demo.py $(ARGS)

test: .venv/.stamp-dev  ## unit and integration tests
	@$(BIN)/pytest $(ARGS)

# That Airflow warns of its own modules' names.
test-lowest: .venv-lowest/.stamp-lowest  ## the provider's tests on the lowest supported Airflow
	@.venv-lowest/bin/pytest -W ignore::DeprecationWarning tests/unit/provider tests/integration/provider $(ARGS)

e2e: .venv/.stamp-dev  ## tests with a real Airflow
	@$(BIN)/pytest tests/e2e $(ARGS)

e2e-lowest: .venv-lowest/.stamp-lowest  ## the same on the lowest supported Airflow
	@.venv-lowest/bin/pytest -W ignore::DeprecationWarning tests/e2e $(ARGS)

coexistence: .venv-both/.stamp-both  ## tests beside the official provider, in one Airflow
	@.venv-both/bin/pytest tests/coexistence $(ARGS)

bench: .venv/.stamp-dev  ## compare with the official provider
	@PYTHONPATH=.:deploy/demo $(BIN)/python deploy/bench/bench.py $(ARGS)

lint: .venv/.stamp-dev  ## style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.stamp-dev  ## strict types
	@$(BIN)/mypy
	@MYPYPATH=deploy/demo:deploy/bench:tests/e2e $(BIN)/mypy deploy tests/e2e

layers: .venv/.stamp-dev  ## imports run downwards only
	@$(BIN)/lint-imports

package: .venv/.stamp-dev  ## build wheel and sdist into dist/
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist .

clean:  ## remove what was built and what demos left, but no environment
	@rm -rf build dist .demo .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path './.venv*' -prune -o -name __pycache__ -type d -exec rm -rf {} +

.venv/.stamp-run .venv/.stamp-dev .venv-lowest/.stamp-lowest .venv-both/.stamp-both: pyproject.toml deploy/environment.py
	@test -n "$(PYTHON)" || { echo "no Python from 3.10 to 3.14 here: install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "$(PYTHON) is not a Python from 3.10 to 3.14" >&2; exit 1; }
	@$(PYTHON) deploy/environment.py $(@F:.stamp-%=%)
