# The commands of this project. They need Python 3.11 or newer, git and make; the rest goes into .venv,
# what the lowest supported Airflow needs into .venv-lowest, and what has the official provider beside ours into .venv-both.

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest e2e e2e-lowest coexistence bench short-syncs fuzz soak pooled browser screenshots docs walkthrough lint types layers package deploy-check clean
MAKEFLAGS += --no-print-directory

# The first Python that is new enough. PYTHON=… on the command line chooses another.
NEW_ENOUGH := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && { echo $$python; break; }; done)
BIN := .venv/bin

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: .venv/.stamp-run  ## run a simulated Airbyte, the listener and a real Airflow, and show a pushed task
	@$(BIN)/python deploy/demo/demo.py $(ARGS)

# On asyncio, as in Airflow and in the listener; .ci/packaging runs what is not tied to it on trio.
test: .venv/.stamp-dev  ## unit, integration, model and documentation tests
	@$(BIN)/pytest --loop=asyncio --numprocesses=4 --dist=loadfile $(ARGS)

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

short-syncs: .venv/.stamp-dev  ## whether Airflow fails 200 deferred tasks with syncs of 0.5 to 5 s, in about 8 minutes
	@PYTHONPATH=.:deploy/demo:deploy/bench $(BIN)/python deploy/bench/short.py $(ARGS)

fuzz: .venv/.stamp-dev  ## look for bugs with made-up input, for FUZZ_SECONDS (300), and say what was tried
	@$(BIN)/pytest tests/fuzz --hypothesis-profile=fuzz --fuzz-seconds=$(or $(FUZZ_SECONDS),300) $(ARGS)

soak: .venv/.stamp-dev  ## crash, power loss, faults on the wire and load, in about 10 minutes, and say what was done
	@$(BIN)/pytest tests/soak --soak $(ARGS)

pooled: .venv/.stamp-dev  ## the PostgreSQL store's tests behind pgbouncer, in transaction mode: wants pgbouncer
	@$(BIN)/pytest tests/unit/store -k postgres --pgbouncer $(ARGS)

browser: .venv/.stamp-dev  ## the dashboard in a real browser: wants Chromium
	@$(BIN)/pytest tests/browser $(ARGS)

screenshots: .venv/.stamp-dev  ## make docs/screenshots anew: wants Chromium
	@$(BIN)/python tests/browser/screenshots.py docs/screenshots

docs: .venv/.stamp-dev  ## build the documentation into build/docs; a warning is an error
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

deploy-check: .venv/.stamp-deploy  ## check deploy/: image, chart, compose, unit, proxies, alerts; says what was not
	@$(BIN)/pytest tests/deploy -rs $(ARGS)

walkthrough: .venv/.stamp-dev  ## walk through all of it as docs/walkthrough.md says
	@$(BIN)/python deploy/walkthrough.py

lint: .venv/.stamp-dev  ## style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.stamp-dev  ## strict types
	@$(BIN)/mypy
	@MYPYPATH=deploy/demo:deploy/bench:tests/e2e $(BIN)/mypy deploy tests/e2e
	@MYPYPATH=tests/soak:tests $(BIN)/mypy tests/soak
	@MYPYPATH=tests/model $(BIN)/mypy tests/model
	@$(BIN)/mypy tests/docs docs/conf.py docs/from_code.py
	@MYPYPATH=deploy/demo:tests/browser $(BIN)/mypy tests/browser
	@$(BIN)/mypy tests/deploy

layers: .venv/.stamp-dev  ## imports run downwards only
	@$(BIN)/lint-imports

package: .venv/.stamp-dev  ## build wheel and sdist into dist/
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist .

clean:  ## remove what was built and what demos left, but no environment
	@rm -rf build dist .demo .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path './.venv*' -prune -o -name __pycache__ -type d -exec rm -rf {} +

.venv/.stamp-run .venv/.stamp-dev .venv/.stamp-deploy .venv-lowest/.stamp-lowest .venv-both/.stamp-both: pyproject.toml deploy/environment.py
	@test -n "$(PYTHON)" || { echo "no Python from 3.11 to 3.14 here: install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "$(PYTHON) is not a Python from 3.11 to 3.14" >&2; exit 1; }
	@$(PYTHON) deploy/environment.py $(@F:.stamp-%=%)
