# For a machine with Python alone: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Empty for the default build of torch; `make CONSTRAINTS=constraints/cpu.txt ...` takes the CPU build.
CONSTRAINTS ?=
# One test process per core; what is trained for tests is trained once for all of them.
WORKERS ?= -n logical --maxprocesses 8 --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

.PHONY: demo test test-slow lint types docs
demo: $(VENV)/installed
	$(BIN)/rvpt demo -o rvpt-demo --overwrite

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest $(WORKERS)

test-slow: $(VENV)/installed-dev
	$(PIP) -e '.[dev,ray,onnx,web,browser]'
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

docs: $(VENV)/installed
	$(PIP) -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e '.[dev]'
	touch $@
