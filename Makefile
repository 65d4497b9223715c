# make quickstart: install, then train and evaluate the embedded default.   make test: install, then run the tests.
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-all models-table check format lint types clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PY) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/moka train recipes/quickstart.yaml

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -m "not gpu"

models-table: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -m "not gpu" tests/families/test_matrix.py --models-table docs/models.md

format: $(VENV)/.installed
	$(BIN)/ruff format .

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell src tests examples docs scripts bench recipes README.md CHANGELOG.md CONTRIBUTING.md

types: $(VENV)/.installed
	$(BIN)/pyright

check: lint types test

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .hypothesis
