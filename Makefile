# vmmr's commands. Each sets up what it needs in .venv first.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CARS ?= ../shared/data/stanford_cars
# Three processes keep two cores busy: tests wait for disks and for processes of their own.
IN_PARALLEL := -n 3 --dist loadgroup --max-worker-restart 0

.PHONY: help demo cluster-demo test coverage check audit docs cars protos bench

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

demo: $(VENV)/.services  ## ask the pair that ships; then draw cars, index them, serve them, identify photos it has not seen
	$(BIN)/python -m demo

cluster-demo: $(VENV)/.dev  ## the gallery that ships, on two Ray nodes of this machine, one of which is killed while it answers
	$(BIN)/python -m demo.cluster

test: $(VENV)/.dev  ## run all tests
	$(BIN)/python -m pytest $(IN_PARALLEL)

coverage: $(VENV)/.dev  ## run all tests, print what they cover, fail if that falls; takes a third longer
	$(BIN)/python -m pytest $(IN_PARALLEL) --cov --cov-report term

check: $(VENV)/.dev  ## lint, format, types, architecture, protos and their stubs, the documentation site, the wheels
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python protos/generate.py --check
	$(BIN)/mkdocs build --strict
	$(BIN)/python -m pytest tests/distributions/wheels.py
	$(BIN)/python deploy/audit.py

audit: $(VENV)/.dev  ## ask PyPI whether vulnerabilities are known of the packages in the images; fail if it does not answer
	$(BIN)/python deploy/audit.py --required

docs: $(VENV)/.dev  ## the documentation site, at 127.0.0.1:8000, built anew as pages change
	$(BIN)/mkdocs serve

cars: $(VENV)/.services  ## the demo's chain on the real photos in CARS, scored on a tenth of them held out
	$(BIN)/python -m demo --photos $(CARS)

bench: $(VENV)/.dev  ## every ratio of served to raw, and to other servers, in one table (20 minutes)
	$(BIN)/python -m bench.all

protos: $(VENV)/.dev  ## generate the stubs in client/vmmr from protos/
	$(BIN)/python protos/generate.py

$(VENV)/.services: pyproject.toml client/pyproject.toml client/vmmr/_version.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "vmmr needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable ./client --editable '.[cpu,heic]'
	@touch $@

$(VENV)/.dev: $(VENV)/.services
	@echo "setting up $(VENV) for development"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable ./client --editable '.[dev,docs,train]'
	@touch $@
