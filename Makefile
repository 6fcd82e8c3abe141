# Every target is documented by the `##` comment on its line; `make help` prints them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-stamp

# The first of these that can make a virtual environment and use constraints.txt, which was frozen on 3.11 (the package itself
# supports 3.10 too, with older versions of its dependencies).
# Override with `make setup PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

# More arguments for pytest: `make test ARGS="-k partition -x"`.
ARGS ?=

.PHONY: help setup demo test test-torch test-tf test-gpu golden lint format types contract check bench bench-tf bench-gpu clean

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

setup: $(STAMP) ## Make .venv and install everything for development (nothing to do when up to date)

$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		[ -n "$(PYTHON)" ] || { echo "setup: no Python >= 3.11 with venv found; try 'make setup PYTHON=/path/to/python'" >&2; exit 1; }; \
		echo "setup: making $(VENV) with $(PYTHON)"; \
		$(PYTHON) -m venv $(VENV); \
	fi
	@echo "setup: installing (one to two minutes when fresh)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-input -c constraints.txt -e '.[torch,demo,dev]'
	@# A pretrained SavedModel that travels as a package; its own requirements are of an older TensorFlow.
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-input --no-deps basic-pitch==0.4.0
	@touch $@

demo: setup ## Semantic search with a pretrained MiniLM, and a converted SavedModel that hears notes: answers, latency, reports
	$(BIN)/python examples/01_sentence_embeddings.py
	$(BIN)/python examples/02_saved_model.py

test: setup ## Run every test that needs no GPU (ARGS="..." goes to pytest)
	$(BIN)/python -m pytest -m "not gpu" --timeout=600 -n auto --dist worksteal $(ARGS)

# `make test-torch TORCH=2.9`: an environment of its own for each version, without TensorRT and with an old ONNX Runtime. PyPI's
# torch for Linux brings CUDA's libraries, 7 GB in all: point pip at PyTorch's CPU wheels first if you do not want them.
TORCH ?= 2.9
ONNXRUNTIME ?= 1.23
TORCH_VENV := .venv-torch$(TORCH)

test-torch: ## Run the torch tests, less those of OpInfo, on another torch, in an environment of its own (TORCH=2.9 ONNXRUNTIME=1.23)
	@test -x $(TORCH_VENV)/bin/python || $(PYTHON) -m venv $(TORCH_VENV)
	@$(TORCH_VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-input -e . 'torch==$(TORCH).*' \
		'onnxruntime==$(ONNXRUNTIME).*' 'hypothesis>=6.100' 'pytest>=8.3' 'pytest-timeout>=2.3' 'pytest-xdist>=3.6' 'transformers>=4.48'
	$(TORCH_VENV)/bin/python -m pytest --timeout=600 -n auto --dist worksteal --ignore tests/torch/test_opinfo.py tests/torch \
		tests/conformance/test_onnxruntime.py $(ARGS)

# `make test-tf TF=2.16`: an environment of its own for each version (Python 3.11 or 3.12 for 2.16 and 2.18).
TF ?= 2.18
TF_VENV := .venv-tf$(TF)

test-tf: ## Run the TensorFlow tests on another TensorFlow, in an environment of its own (TF=2.16)
	@test -x $(TF_VENV)/bin/python || $(PYTHON) -m venv $(TF_VENV)
	@$(TF_VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-input -e . 'tensorflow-cpu==$(TF).*' \
		'hypothesis>=6.100' 'pytest>=8.3' 'pytest-timeout>=2.3' 'pytest-xdist>=3.6'
	$(TF_VENV)/bin/python -m pytest --timeout=600 -n auto --dist worksteal tests/tf $(ARGS)

# These two run with the Python of the environment that has torch for CUDA and TensorRT: `make test-gpu GPU_PYTHON=python3`.
GPU_PYTHON ?= $(BIN)/python
# So many processes share the GPU in test-gpu; 0 is none beside pytest itself.
GPU_WORKERS ?= 4
GPU_ENV := PYTHONPATH=$(CURDIR):$(CURDIR)/integrations/torch:$(CURDIR)/integrations/tf:$$PYTHONPATH

test-gpu: ## Run the correctness tests on real TensorRT engines of this machine's GPU (GPU_PYTHON=..., GPU_WORKERS=...)
	$(GPU_ENV) $(GPU_PYTHON) -m pytest --device cuda --timeout=600 -m "not exclusive" -n $(GPU_WORKERS) tests/gpu tests/torch $(ARGS)
	$(GPU_ENV) $(GPU_PYTHON) -m pytest --device cuda --timeout=600 -m exclusive tests/gpu $(ARGS)

golden: setup ## Run the tests and accept changed goldens; read the diff before you commit
	$(BIN)/python -m pytest -m "not gpu" --accept $(ARGS)

lint: setup ## Check the format and lint (Ruff)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: setup ## Format, and fix what Ruff can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

types: setup ## Check types (Pyright: strict in trt_backend/, basic elsewhere)
	$(BIN)/pyright

contract: setup ## Check the direction of imports (import-linter)
	$(BIN)/lint-imports

check: lint types contract test ## All of the above that a change must pass

bench: setup ## Time models against eager and Inductor, our cost a call, the partitioner; writes docs/benchmarks.md
	$(BIN)/python benches/write_docs.py benchmarks

bench-tf: setup ## Time SavedModels in TensorFlow against the same converted, our cost a call; writes docs/benchmarks-tf.md
	$(BIN)/python benches/write_docs.py benchmarks-tf

bench-gpu: ## Time models on this machine's GPU against eager, Inductor and raw TensorRT (GPU_PYTHON=..., ARGS="--rows ...")
	$(GPU_ENV) $(GPU_PYTHON) benches/gpu_models.py $(ARGS)

clean: ## Remove caches and build output (.venv stays)
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
