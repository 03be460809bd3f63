# Every target works on a bare checkout: it makes .venv and installs what it needs into it. For the demo and the tools
# that is the package; for the tests and the linter, all extras too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEV := $(VENV)/.dev
# Without the variable setuptools warns at length of every editable install.
INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable

.PHONY: demo test test-all lint types card regenerate clean

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "nasnet-zoo needs Python 3.11 or newer; say make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(INSTALL) .
	touch $@

$(DEV): $(INSTALLED)
	$(INSTALL) '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/nasnet-zoo predict nasnet_zoo/assets/cifar10-examples

test: $(DEV)
	$(BIN)/python -m pytest -n auto

test-all: $(DEV)
	$(BIN)/python -m pytest -n auto -m ''

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What mypy says where it is not strict yet; the last line counts it.
types: $(DEV)
	$(BIN)/mypy nasnet_zoo search export || true

card: $(INSTALLED)
	$(BIN)/python tools/family_card.py > MODEL_CARD.md

# The search that found the shipped cell, again: half an hour on two cores. DATA is the folder that holds CIFAR-10.
regenerate: $(INSTALLED)
	$(BIN)/python tools/regenerate.py runs/regenerated $(if $(DATA),--data $(DATA))

clean:
	rm -rf $(VENV) build dist *.egg-info
