# `make demo` and `make test` work on a bare checkout: they make .venv and install everything into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all lint card regenerate clean

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "nasnet-zoo needs Python 3.11 or newer; say make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
# Without the variable setuptools warns at length of every editable install.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/nasnet-zoo predict tests/images/*.png

test: $(STAMP)
	$(BIN)/python -m pytest -n auto

test-all: $(STAMP)
	$(BIN)/python -m pytest -n auto -m ''

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

card: $(STAMP)
	$(BIN)/python tools/family_card.py > MODEL_CARD.md

# The search that found the shipped cell, again: half an hour on two cores. DATA is the folder that holds CIFAR-10.
regenerate: $(STAMP)
	$(BIN)/python tools/regenerate.py runs/regenerated $(if $(DATA),--data $(DATA))

clean:
	rm -rf $(VENV) build dist *.egg-info
