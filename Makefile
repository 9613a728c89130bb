# Two commands on a fresh machine:
#
#   make demo    environment, installation, and the main job: methods compared on real data
#   make test    environment, installation, and everything that CI checks
#
# and one for readers:
#
#   make docs    environment, installation, and the documentation as a site: build/site/html/index.html
#
# PYTHON chooses the interpreter, TORCH the build of PyTorch, VENV the folder of the environment.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
WORKERS ?= 2

BIN = $(VENV)/bin
PIP = $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: demo docs test lint types tests wheel clean

demo: $(VENV)/user
	$(BIN)/equimodal compare watch --out results/watch

test: lint types tests wheel

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

tests: $(VENV)/dev
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

docs: $(VENV)/docs
	$(BIN)/python docs/site/build.py
	$(BIN)/python docs/site/browse.py

wheel: $(VENV)/dev
	$(BIN)/python scripts/check_wheel.py --torch $(TORCH)

clean:
	rm -rf $(VENV) build dist results .mypy_cache .pytest_cache .ruff_cache .hypothesis

# What is installed is noted by a file in the environment, and made anew when the needs change.

$(VENV)/torch:
	@echo "installing PyTorch, which is large: this can take minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	touch $@

$(VENV)/user: $(VENV)/torch pyproject.toml
	$(PIP) --editable '.[all]'
	touch $@

$(VENV)/docs: $(VENV)/torch pyproject.toml
	$(PIP) --editable '.[docs]'
	touch $@

$(VENV)/dev: $(VENV)/torch pyproject.toml
	$(PIP) --editable '.[dev]'
	touch $@
