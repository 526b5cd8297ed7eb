# `make demo` and `make test` do all their set-up themselves, on a fresh machine without a GPU.
PYTHON ?= python3.12
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE ?= 1

.PHONY: setup demo test lint clean

setup: $(VENV)/.ready

# Debian packages are asked for only where something is missing; Slurm and munge are for the tests
$(VENV)/.ready: requirements-cpu.txt pyproject.toml scripts/setup.sh
	bash scripts/setup.sh $(VENV)
	touch $@

demo: setup
	bash scripts/demo.sh $(BIN)

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 --dist loadfile
	$(BIN)/pytest -q -m slow

lint: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .cache
