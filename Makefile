# Needs only Python >= 3.11, make and a package index. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
SOLUTIONS := $(wildcard notebooks/solutions/*.ipynb)
NBVAL := --nbval-current-env -p no:cacheprovider
OFFLINE := HF_HUB_OFFLINE=1 $(BIN)/python tests/offline.py
ROOT_FLAG := $(if $(filter 0,$(shell id -u)),--allow-root)
LAB_FLAGS ?=
TORCH_INDEX ?=

.PHONY: help install fetch lab lint check test test-real test-all notebooks bench

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## make .venv and install the course with the tested versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"The course needs Python 3.11 or newer, {sys.executable} is {v.major}.{v.minor}. Name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the course into $(VENV): a few minutes."
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH_INDEX:%=--index-url %) torch
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[training,quantization,serving,dev]"
	@touch $(STAMP)

fetch: install ## get the official weights (491 MB), once
	@$(BIN)/python -m qwen_course fetch chat

lab: install ## install, fetch, open JupyterLab on the first lesson
	@$(BIN)/python -m qwen_course fetch chat || echo "WARNING: no official weights yet. Lessons need them: run 'make fetch' while connected."
	$(BIN)/jupyter lab $(ROOT_FLAG) $(LAB_FLAGS) notebooks/00_start_here.ipynb

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint ## fast: ruff, mypy, unit tests, static notebook rules
	HF_HUB_OFFLINE=1 $(BIN)/pytest -m "not slow and not weights and not hub and not gpu"

test: fetch lint ## everything: lint, all unit tests, official weights, strict nbval, solutions
	HF_HUB_OFFLINE=1 QWEN_COURSE_EXAMPLES=500 $(BIN)/pytest -m "not weights and not hub and not gpu"
	$(OFFLINE) $(BIN)/pytest -m "weights and not hub and not gpu"
	$(OFFLINE) $(BIN)/pytest --nbval $(NBVAL) --nbval-cell-timeout 300 $(NOTEBOOKS) $(SOLUTIONS)

test-real: fetch ## every notebook on official weights
	QWEN_COURSE_PROFILE=small $(OFFLINE) $(BIN)/pytest --nbval-lax $(NBVAL) --nbval-cell-timeout 900 $(NOTEBOOKS)

test-all: test test-real ## both

notebooks: fetch ## run the notebooks again, normalise and store their outputs
	HF_HUB_OFFLINE=1 $(BIN)/python tests/refresh_notebooks.py $(LESSONS)

bench: fetch ## measure overheads as ratios (minutes)
	HF_HUB_OFFLINE=1 $(BIN)/python tests/bench.py
