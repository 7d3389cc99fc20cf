# Two commands: `make demo` runs the main job, `make test` passes the tests. Both install what they need into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PROJECTS := pyproject.toml core/pyproject.toml kernels/pyproject.toml plugins/kvcache/pyproject.toml plugins/genco/pyproject.toml
# Two worker processes with one thread each do more than one process with two threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal
LOG := docs/test-all.log

.PHONY: demo test test-all test-gpu check dist clean help

help:
	@echo "make demo      install into .venv and run the demo (report in runs/kvcache/demo/)"
	@echo "make test      install what the tests need and run them"
	@echo "make test-all  all tests, the long ones too; the log goes to $(LOG)"
	@echo "make test-gpu  the tests that need a CUDA device"
	@echo "make check     lint, types, import rules (needs make test once)"
	@echo "make dist      wheels of every distribution in dist/"

$(VENV)/installed: constraints.txt $(PROJECTS)
	@echo "installing into $(VENV) (1.8 GB with a CPU build of torch) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) "torch==2.13.0" "setuptools>=77,<82" wheel
	@$(PIP) --no-build-isolation --editable "./core[hf]" --editable ./kernels --editable ./plugins/kvcache --editable ./plugins/genco
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "installing the development tools ..."
	@$(PIP) --no-build-isolation --editable ".[dev]" --editable "./plugins/kvcache[regret]"
	@touch $@

demo: $(VENV)/installed
	$(BIN)/tian run kvcache/demo

test: $(VENV)/installed-dev
	$(PYTEST) -m "not slow and not gpu and not net"

# The interpreter and compiler tests of the kernels need triton (1 GB), one test of the optimum needs scipy.
$(VENV)/installed-all: $(VENV)/installed-dev
	@echo "installing triton and scipy for the long tests (1.1 GB) ..."
	@$(PIP) --no-build-isolation --editable "./kernels[triton]" scipy
	@touch $@

test-all: $(VENV)/installed-all
	@bash -o pipefail -c '$(PYTEST) -m "not gpu and not net" --durations=15 2>&1 | sed "s|$(CURDIR)|.|g" | tee $(LOG)'

test-gpu: $(VENV)/installed-all
	$(PYTEST) -m gpu

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

dist: $(VENV)/installed-dev
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . ./core ./kernels ./plugins/kvcache ./plugins/genco
	@ls dist

clean:
	rm -rf build dist core/build kernels/build plugins/*/build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
