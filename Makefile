# make quickstart: install, then train and evaluate the embedded default.   make test: install, then run the tests.
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := transformers==5.17.0 peft==0.21.0

.PHONY: quickstart test test-all test-oldest models-table check format lint types clean

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PY) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[demo]"
	touch $@

$(VENV)/.installed: $(VENV)/.demo
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

quickstart: $(VENV)/.demo
	$(BIN)/moka train recipes/quickstart.yaml

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2

# the oldest versions that are supported, with what they ask for; all else as pinned
$(VENV)-oldest/.installed: pyproject.toml constraints.txt Makefile
	$(PY) -m venv $(VENV)-oldest
	grep -vE '^(transformers|peft|huggingface_hub|hf-xet|tokenizers)==' constraints.txt > $(VENV)-oldest/constraints.txt
	$(VENV)-oldest/bin/python -m pip install -q --disable-pip-version-check \
		-c $(VENV)-oldest/constraints.txt -e ".[dev]" $(OLDEST)
	touch $@

test-oldest: $(VENV)-oldest/.installed
	$(VENV)-oldest/bin/python -m pytest -n 2

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -m "not gpu"

models-table: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -m "not gpu" tests/families/test_matrix.py \
		-k "not documented" --models-table docs/models.md

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
	rm -rf $(VENV) $(VENV)-oldest runs .pytest_cache .ruff_cache .hypothesis
