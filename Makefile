# `make help` lists the targets. Each installs what it needs into .venv, once, and
# again when pyproject.toml or constraints.txt changed. Works with GNU make 3.81.

PYTHON ?= python3
ARGS ?=
PROCESSOR ?= native
SHIFT ?=
ifndef SEED
SEED := $(shell date +%s)
endif

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

EXTENSIONS_BUT = import numpy; \
	found = numpy.show_config("dicts")["SIMD Extensions"].get("found", ()); \
	print(*{*found} - {*[$(1)]})
# Sums are rounded differently on each of these, so a test must hold on all. numpy is
# told what not to use, by names of which it only takes those that it found.
PROCESSORS := native sse4 avx2 four-threads
AS_native :=
AS_sse4 := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 \
	MKL_ENABLE_INSTRUCTIONS=SSE4_2 OPENBLAS_CORETYPE=Nehalem \
	NUMBA_CPU_NAME=generic NUMBA_CPU_FEATURES= \
	NPY_DISABLE_CPU_FEATURES="$$($(BIN)/python -c '$(call EXTENSIONS_BUT,)')"
AS_avx2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
	MKL_ENABLE_INSTRUCTIONS=AVX2 OPENBLAS_CORETYPE=Haswell \
	NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES= \
	NPY_DISABLE_CPU_FEATURES="$$($(BIN)/python -c '$(call EXTENSIONS_BUT,"X86_V3")')"
AS_four-threads := OMP_NUM_THREADS=4 MKL_DYNAMIC=FALSE
ifeq ($(filter $(PROCESSOR),$(PROCESSORS)),)
$(error PROCESSOR=$(PROCESSOR) is none of $(PROCESSORS))
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-processors coverage lint docs bench dist clean

help:
	@echo "make demo    run the quickstart"
	@echo "make test    run the tests;  ARGS='-k name' is handed to pytest"
	@echo "             SEED=1 is an order of theirs, SHIFT=1 changes all their"
	@echo "             random numbers, PROCESSOR=avx2 is one of"
	@echo "             $(PROCESSORS)"
	@echo "make test-processors    run the tests as on each of these"
	@echo "make coverage    run the tests, and say which lines they leave out"
	@echo "make lint    run all static checks"
	@echo "make docs    build the documentation into docs/_build/html"
	@echo "make bench   run every benchmark"
	@echo "make dist    build sdist and wheel into dist/"
	@echo "make clean   remove what the targets above made, except .venv"
	@echo "The first run makes .venv with PYTHON=$(PYTHON) (3.11 or newer)."

demo: .venv/.plot.stamp .venv/.torch.stamp
	@$(BIN)/python examples/quickstart.py $(ARGS)

test: .venv/.test.stamp
	@echo "The order of the tests is random; SEED=$(SEED) repeats it."
	@env $(AS_$(PROCESSOR)) SHIFT=$(SHIFT) $(BIN)/python -m pytest -q -n 2 \
		--randomly-seed=$(SEED) $(if $(SHIFT),-p tests.helpers.shifted_seeds) $(ARGS)

test-processors:
	@set -e; for processor in $(PROCESSORS); do \
		echo "$$processor"; $(MAKE) test PROCESSOR=$$processor; \
	done

coverage: .venv/.test.stamp
	@$(BIN)/python -m pytest -q -n 2 --cov --cov-report=term:skip-covered $(ARGS)

lint: .venv/.dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/mypy sklcomp
	$(BIN)/lint-imports

docs: .venv/.docs.stamp
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html $(ARGS)

bench: .venv/.bench.stamp
	@set -e; for script in benchmarks/[a-z]*.py; do \
		echo "$$script"; $(BIN)/python "$$script" $(ARGS); \
	done

dist: .venv/.test.stamp
	@rm -rf dist
	$(BIN)/python -m build

clean:
	rm -rf build dist sklcomp.egg-info docs/_build docs/auto_examples docs/generated
	rm -rf benchmarks/results examples/output .coverage .coverage.* htmlcov
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find sklcomp tests examples benchmarks docs -name __pycache__ -prune \
		-exec rm -rf {} + 2>/dev/null || true

# One stamp per extra of pyproject.toml. The version is part of what is installed.
.venv/.%.stamp: pyproject.toml constraints.txt sklcomp/_version.py | .venv/bin/python
	@echo "Installing sklcomp[$*] into .venv (minutes the first time) ..."
	@$(PIP) install -q -c constraints.txt -e ".[$*]"
	@touch $@

# A half-made .venv would look finished to the next run, so it is removed.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 1; }
	@echo "Making .venv with $(PYTHON) ..."
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
