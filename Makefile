SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: help
help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: venv
venv: $(VENV)/.installed .cache/collections/ansible_collections/tradingbot/stack ## Make .venv with the pinned tools

$(VENV)/.installed: requirements.txt
	@echo "== tools: installing the pinned packages into $(VENV) (about a minute)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r requirements.txt
	@$(BIN)/python -m pip check -q --disable-pip-version-check
	@touch $@

.cache/collections/ansible_collections/tradingbot/stack:
	@mkdir -p $(@D)
	@ln -sfn $(CURDIR) $@

.PHONY: lock
lock: ## Pin requirements.in into requirements.txt (needs uv)
	uv pip compile --generate-hashes --universal --python-version 3.11 --no-header -q requirements.in -o requirements.txt

MODEL_VENV := .cache/model-venv

$(MODEL_VENV)/.installed: backend/requirements-tools.txt
	@echo "== tools: installing what makes the demo's model into $(MODEL_VENV)"
	@$(PYTHON) -m venv $(MODEL_VENV)
	@$(MODEL_VENV)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r backend/requirements-tools.txt
	@touch $@

.cache/models/tiny-lstm/1/manifest.json: $(MODEL_VENV)/.installed backend/tools/make_tiny_lstm.py
	@$(MODEL_VENV)/bin/python backend/tools/make_tiny_lstm.py .cache/models >/dev/null

.PHONY: demo
demo: venv .cache/models/tiny-lstm/1/manifest.json ## A throwaway host with the whole stack on https://127.0.0.1:8443 (DEMO_HTTP_PORT, DEMO_HTTPS_PORT)
	@$(BIN)/python -m tests.testbed.demo up

.PHONY: demo-down
demo-down: ## Remove all that `make demo` made, and only that
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m tests.testbed.demo down; else $(PYTHON) -m tests.testbed.demo down; fi

BACKEND_VENV := .cache/backend-venv

$(BACKEND_VENV)/.installed: backend/requirements-dev.txt backend/requirements-build.txt backend/pyproject.toml
	@echo "== tools: installing the backend and what its tests need into $(BACKEND_VENV)"
	@$(PYTHON) -m venv $(BACKEND_VENV)
	@$(BACKEND_VENV)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r backend/requirements-dev.txt
	@$(BACKEND_VENV)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r backend/requirements-build.txt
	@$(BACKEND_VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e backend
	@$(BACKEND_VENV)/bin/python -m pip check -q --disable-pip-version-check
	@touch $@

TESTS_NEED := venv $(BACKEND_VENV)/.installed .cache/models/tiny-lstm/1/manifest.json

.PHONY: tools-for-tests
tools-for-tests: $(TESTS_NEED)

.PHONY: test
test: ## All checks: lint, unit, backend, and the scenarios on real hosts (STAGES="lint unit" for some)
	@$(MAKE) --no-print-directory --jobs 2 tools-for-tests
	@$(BIN)/python tests/run.py $(STAGES)

.PHONY: test-all
test-all: ## The same with every moment of every kill and the backend's coverage, for a release
	@$(MAKE) --no-print-directory --jobs 2 tools-for-tests
	@$(BIN)/python tests/run.py --all $(STAGES)

.PHONY: bench
bench: venv $(BACKEND_VENV)/.installed ## Measure: backend, deploy, re-run, memory, requests per second (docs/benchmarks.md)
	@$(BIN)/python -m tests.bench

.PHONY: docs
docs: venv ## Write the roles' READMEs from their argument_specs
	@$(BIN)/python tests/tools/role_docs.py

.PHONY: transcripts
transcripts: venv ## Write docs/transcripts: deploy, failed deploy, rollback and health on a throwaway host
	@$(BIN)/python tests/tools/transcript.py

.PHONY: format
format: venv $(BACKEND_VENV)/.installed ## Format our Python
	@$(BIN)/ruff format .
	@cd backend && $(abspath $(BACKEND_VENV))/bin/ruff format .
