# Each command first installs what it needs into .venv (once, and again when pyproject.toml or constraints.txt
# change) and says so. Needs Python 3.11 or newer and a package index; another Python: make test PYTHON=python3.13

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# uv needs a fraction of pip's time, but does not know pip's settings: where these name an index, or uv fails, pip does it.
UV := uv==0.13.9
install = { ! $(PIP) config list | grep -q "\.index.url=" && $(PIP) install -qq $(UV) && $(BIN)/uv pip install -q --system-certs \
	--compile-bytecode --python $(BIN)/python -c constraints.txt -e "$(1)" 2>/dev/null; } || $(PIP) install -qq -c constraints.txt -e "$(1)"
# Those that take longest come first, so that no process is left alone with one of them at the end.
TIERS := attack e2e integration orchestration contracts unit
TESTS ?= $(TIERS:%=vendor_assets_tests/%)
# Tests that start servers and kill processes wait a good deal: four at once use two cores well.
WORKERS ?= 4

# What tests write is gone when they end: where there is room in memory, no disk is waited for.
SCRATCH := $(shell [ -w /dev/shm ] && [ "$$(df --output=avail -k /dev/shm | tail -1)" -gt 6000000 ] && echo /dev/shm)

# pytest keeps the asserts that it has rewritten as bytecode; without, each of its processes rewrites all of them.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo dev test collect check style layers types format bench attack clean

help: ## Show this
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 17

demo: .venv/installed ## Harvest the embedded vendor's last days and write a report; about a minute
	@$(BIN)/vendor-assets demo

dev: .venv/installed ## Start the embedded vendor and Dagster's UI, until Ctrl-C
	@$(BIN)/vendor-assets dev

test: .venv/installed-dev ## Run all tests; some of them: make test TESTS=vendor_assets_tests/unit
	@echo "testing: $(TESTS)"
	@$(if $(SCRATCH),TMPDIR=$(SCRATCH)) $(BIN)/pytest -n $(WORKERS) $(TESTS)

collect: .venv/installed-dev
	@echo "collecting: $(TESTS)"
	@$(BIN)/pytest -q --collect-only $(TESTS) >/dev/null

check: style layers types ## Check style, layers and types; all of them even so: make -k check

style: .venv/installed-dev
	@echo "checking style (ruff)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

layers: .venv/installed-dev
	@echo "checking layers (import-linter)"
	@$(BIN)/lint-imports

types: .venv/installed-dev
	@echo "checking types (mypy)"
	@$(BIN)/mypy

format: .venv/installed-dev ## Put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: .venv/installed-dev ## Measure; each benchmark says what is wanted
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

attack: .venv/installed-dev ## Kill it, starve it, lie to it, at length; make test has the short forms
	@$(BIN)/pytest -n 2 --long --results vendor_assets_tests/attack/results.md \
	-m "attack or long" $(TIERS:%=vendor_assets_tests/%)

clean: ## Remove what was installed and cached; harvested data and Dagster's history stay
	rm -rf .venv *.egg-info build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Stamps; they are younger than what they were made from.

.venv/installed: pyproject.toml setup.py constraints.txt | .venv/bin/python
	@echo "installing vendor_assets into .venv (once; about a minute)"
	@$(call install,.)
	@touch $@

.venv/installed-dev: pyproject.toml setup.py constraints.txt | .venv/bin/python
	@echo "installing vendor_assets with what tests need into .venv (once; one to two minutes)"
	@$(call install,.[dev])
	@touch $@ .venv/installed

.venv/bin/python:
	@[ -n "$(PYTHON)" ] || { echo "no Python 3.11 or newer was found; name one: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is not Python 3.11 or newer; name another: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv
