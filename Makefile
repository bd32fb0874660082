# Needs only Python >= 3.11, make and a package index. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
SOLUTIONS := $(wildcard notebooks/solutions/*.ipynb)
# Lessons with recordings run once on official weights, when they are recorded.
LESSONS_RECORDED := $(basename $(notdir $(wildcard data/recorded/*.json)))
RECORDED := $(LESSONS_RECORDED:%=notebooks/%_%)
UNIT := not weights and not hub and not gpu and not vllm and not mutants and not browser
NBVAL := -p tests.patient_kernels --nbval-current-env -p no:cacheprovider -p no:schemathesis -p no:hypothesispytest
# Two files at a time, each on one thread, the longest first.
WORKERS ?= 2
SEEDS ?= 1 2 3 4 5 6 7 8 9 10
# Strict runs fork their kernels: forty imports of torch are minutes.
FORKED := $(BIN)/python -m pytest -p tests.forked_kernels
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
LONGEST := $(wildcard notebooks/90_*.ipynb)
OFFLINE := HF_HUB_OFFLINE=1 $(BIN)/python tests/offline.py
ROOT_FLAG := $(if $(filter 0,$(shell id -u)),--allow-root)
LAB_FLAGS ?=
TORCH_INDEX ?=
# vLLM wants an older transformers than the course: an environment of its own.
VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/.installed
# What Colab has, in an environment of its own: lessons run there unchanged.
COLAB := .venv-colab
COLAB_STAMP := $(COLAB)/.installed
# What drives Debian's chromium, for `make browser` only.
BROWSER_STAMP := $(VENV)/.browser
# Bytecode is written by the first import, for what is used: a minute less than for all.
QUICKLY := --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE
NEW_ENOUGH = @$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"The course needs Python 3.11 or newer, {sys.executable} is {v.major}.{v.minor}. Name another one: make PYTHON=python3.12")'

.PHONY: help install vllm fetch lab lint check test test-real test-colab browser mutants steady test-all notebooks pages pocket measure bench

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "%-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv and install the course with the tested versions

$(STAMP): pyproject.toml constraints.txt
	$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the course into $(VENV): a few minutes."
	$(BIN)/python -m pip install $(QUICKLY) --upgrade pip
	$(BIN)/python -m pip install $(QUICKLY) -c constraints.txt $(TORCH_INDEX:%=--index-url %) torch
	$(BIN)/python -m pip install $(QUICKLY) -c constraints.txt setuptools
	$(BIN)/python -m pip install $(QUICKLY) -c constraints.txt -e ".[training,quantization,serving,dev]"
	@touch $(STAMP)

vllm: $(VLLM_STAMP) ## make .venv-vllm with vLLM, for lesson 08b (3.4 GB, minutes)

$(VLLM_STAMP): constraints-vllm.txt
	$(NEW_ENOUGH)
	$(PYTHON) -m venv --clear $(VLLM)
	@echo "Installing vLLM into $(VLLM): a few minutes."
	$(VLLM)/bin/python -m pip install --quiet -c constraints-vllm.txt $(TORCH_INDEX:%=--index-url %) torch
	$(VLLM)/bin/python -m pip install --quiet --no-deps -r constraints-vllm.txt
	@touch $(VLLM_STAMP)

$(COLAB_STAMP): constraints-colab.txt
	$(NEW_ENOUGH)
	$(PYTHON) -m venv --clear $(COLAB)
	@echo "Installing Colab's packages into $(COLAB): a few minutes."
	$(COLAB)/bin/python -m pip install --quiet $(TORCH_INDEX:%=--index-url %) torch==2.13.0
	$(COLAB)/bin/python -m pip install --quiet -r constraints-colab.txt
	@touch $(COLAB_STAMP)

fetch: install ## get the official weights (491 MB), once
	@$(BIN)/python -m qwen_course fetch chat

lab: install ## install, fetch, open JupyterLab on the first lesson
	@$(BIN)/python -m qwen_course fetch chat || echo "WARNING: no official weights; lessons run on the bundled pocket models. Later: make fetch"
	$(BIN)/jupyter lab $(ROOT_FLAG) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB_FLAGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/mypy

check: lint ## fast: ruff, typos, mypy, unit tests, static notebook rules
	HF_HUB_OFFLINE=1 $(BIN)/pytest -m "not slow and $(UNIT)"

test: lint ## everything without network: all unit tests, strict nbval on pocket models, solutions
	OMP_NUM_THREADS=1 QWEN_COURSE_EXAMPLES=500 $(OFFLINE) $(BIN)/pytest $(SIDE_BY_SIDE) -m "$(UNIT)"
	OMP_NUM_THREADS=1 QWEN_COURSE_PROFILE=pocket $(OFFLINE) $(FORKED) $(SIDE_BY_SIDE) --nbval $(NBVAL) --nbval-cell-timeout 120 $(LONGEST) $(filter-out $(LONGEST),$(NOTEBOOKS)) $(SOLUTIONS)

test-real: fetch ## every notebook on official weights, whose replies are recorded
	$(OFFLINE) $(BIN)/pytest -m "weights and not hub and not gpu and not vllm"
	@if [ -e $(VLLM_STAMP) ]; then $(OFFLINE) $(BIN)/pytest -m vllm; else echo "tests/test_vllm.py left out: vLLM is not installed (make vllm)."; fi
	OMP_NUM_THREADS=1 QWEN_COURSE_PROFILE=small $(OFFLINE) $(BIN)/python -m pytest $(SIDE_BY_SIDE) --nbval-lax $(NBVAL) --nbval-cell-timeout 1800 $(LONGEST) $(filter-out $(RECORDED) $(LONGEST),$(NOTEBOOKS))
	printf '%s\n' $(LESSONS_RECORDED:%=%_) | OMP_NUM_THREADS=1 QWEN_COURSE_PROFILE=small xargs -n 1 -P $(WORKERS) env $(OFFLINE) $(BIN)/python tests/record_notebooks.py

test-colab: $(COLAB_STAMP) ## every lesson on Colab's versions, which the setup cell must not touch
	$(COLAB)/bin/python tests/colab.py

$(BROWSER_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[browser]"
	@touch $(BROWSER_STAMP)

browser: $(BROWSER_STAMP) $(COLAB_STAMP) ## widgets in a real browser, on ipywidgets 8 and 7.7.1; needs Debian's chromium
	@command -v $${CHROMIUM:-chromium} > /dev/null || test "$$(id -u)" != 0 || { apt-get update --quiet=2 && apt-get install --quiet=2 --yes chromium; }
	$(OFFLINE) $(BIN)/pytest -m browser
	$(COLAB)/bin/python -m pip install --quiet --no-deps -c constraints.txt bitsandbytes gguf py3langid trl
	QWEN_COURSE_BROWSER_PYTHON=$(COLAB)/bin/python $(OFFLINE) $(BIN)/pytest -m browser -k "widgets"

mutants: install ## judge every slip in every exercise's solution
	HF_HUB_OFFLINE=1 $(BIN)/pytest -n $(WORKERS) -m mutants

steady: install ## break off and shuffle: unit tests, lessons, a fetch (hours)
	set -e; for seed in $(SEEDS); do OMP_NUM_THREADS=1 QWEN_COURSE_SHUFFLE=$$seed $(OFFLINE) $(BIN)/pytest -n $(WORKERS) --dist loadfile -m "$(UNIT)"; done
	OMP_NUM_THREADS=1 taskset -c 0 env $(OFFLINE) $(BIN)/pytest -m "$(UNIT)"
	OMP_NUM_THREADS=1 $(OFFLINE) $(BIN)/pytest -m "$(UNIT)" & \
	OMP_NUM_THREADS=1 $(OFFLINE) $(BIN)/pytest -m "$(UNIT)" && wait $$!
	export QWEN_COURSE_TEST_HOME=$$(mktemp -d) && $(OFFLINE) $(BIN)/python tests/steady.py lessons && \
	OMP_NUM_THREADS=1 QWEN_COURSE_PROFILE=pocket $(OFFLINE) $(BIN)/python -m pytest $(SIDE_BY_SIDE) --nbval $(NBVAL) --nbval-cell-timeout 120 $(NOTEBOOKS)
	$(BIN)/python tests/steady.py fetch

test-all: test vllm test-real mutants test-colab browser ## all of them

notebooks: install ## run the notebooks again on pocket models, normalise and store their outputs
	QWEN_COURSE_PROFILE=pocket HF_HUB_OFFLINE=1 $(BIN)/python tests/refresh_notebooks.py $(LESSONS)

pages: install ## write the generated pages
	$(BIN)/python tests/make_pages.py

pocket: install ## train the pocket models again (all of them, or ROLE=thinking)
	$(BIN)/python data/recipes/build.py $(ROLE)

measure: install ## ask official models the questions of lessons 04a and 10, measure formats for 05, tunings for 06 (three hours)
	$(BIN)/python -m qwen_course fetch Qwen2.5-Coder-1.5B-Instruct
	HF_HUB_OFFLINE=1 $(BIN)/python data/recipes/official.py
	HF_HUB_OFFLINE=1 $(BIN)/python data/recipes/official.py --speed
	HF_HUB_OFFLINE=1 $(BIN)/python data/recipes/formats.py
	HF_HUB_OFFLINE=1 $(BIN)/python data/recipes/formats.py --speed
	$(BIN)/python data/recipes/tuning.py
	$(BIN)/python data/recipes/qlora.py
	HF_HUB_OFFLINE=1 $(BIN)/python data/recipes/tutor.py
	OMP_NUM_THREADS=1 $(BIN)/python data/recipes/lora.py
	OMP_NUM_THREADS=1 $(BIN)/python data/recipes/thinking_lost.py

bench: fetch ## measure overheads as ratios (minutes)
	HF_HUB_OFFLINE=1 $(BIN)/python tests/bench.py
	QWEN_COURSE_PROFILE=small $(BIN)/python tests/budgets.py
