# make quickstart     a first fine-tuning, on drawn photos: no network beyond the package index
# make check          lint, types and test, the same as CI
# make test           the test suite
# make test-oldest    the same with the lowest versions that pyproject.toml lets in, in .venv-oldest
# make lint           ruff: rules and formatting
# make types          mypy
# make format         rewrite the code as `make lint` wants it
# make package        build the wheel, dist/hf_detr_ft-*.whl
# make package-check  install that wheel in a fresh environment outside the repository, train and open the run there
# make clean          remove what the others made, .venv too
#
# Each makes .venv where there is none and updates it when pyproject.toml or constraints.txt change.
#
# PYTHON=python3.12            the interpreter that .venv is made with
# PYTEST_ARGS="-k boxes -x"    more arguments for pytest
# WORKERS=1                    pytest processes, each on one core (0: no subprocesses, all cores)
# HF_DETR_FT_BALLOON=DIR       the balloon data set; without it the tests on real photos are skipped

VENV := .venv
CONSTRAINTS := constraints.txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
TESTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))

# The first of these that is a Python 3.11 or 3.12; one that is named is taken as it is, if it is 3.11 or newer.
PYTHON ?= $(shell for python in python3 python3.12 python3.11; do \
	$$python -c '$(TESTED)' 2>/dev/null && echo $$python && break; done)

WORKERS ?= 2
PYTEST_ARGS ?=

# Two processes on one core each are faster than one process on two; OpenMP would otherwise start two threads in each.
ifneq ($(WORKERS),0)
test: export OMP_NUM_THREADS ?= 1
endif

.DEFAULT_GOAL := check
.PHONY: quickstart test test-oldest lint types check format package package-check clean

quickstart: $(STAMP)
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no train.py \
		recipes/quickstart.yaml --training.overwrite

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --durations 10 $(PYTEST_ARGS)

test-oldest: build/oldest.txt
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=$<

build/oldest.txt: pyproject.toml
	mkdir -p build
	grep -oE '"[A-Za-z0-9_.-]+(\[[a-z,]+\])?>=[0-9.]+' $< | sed -E 's/"//; s/\[[a-z,]+\]//; s/>=/==/' > $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

package: $(STAMP)
	rm -rf build dist
	$(BIN)/python -m pip wheel --disable-pip-version-check --no-deps --wheel-dir dist .
	rm -rf build

package-check: package
	$(BIN)/python scripts/check_wheel.py dist/hf_detr_ft-*.whl

clean:
	rm -rf $(VENV) .venv-oldest build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find hf_detr_ft tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		test -n "$(PYTHON)" || { \
			echo "error: hf_detr_ft needs Python 3.11 or 3.12, and neither python3, python3.12 nor python3.11 is one." >&2; \
			echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }; \
		$(PYTHON) -c '$(NEW_ENOUGH)' || { \
			echo "error: hf_detr_ft needs Python 3.11 or 3.12; $(PYTHON) is not one: $$($(PYTHON) --version 2>&1)" >&2; \
			exit 1; }; \
		echo "making $(VENV) with $(PYTHON)"; \
		$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
			echo "error: $(PYTHON) cannot make a virtual environment (on Debian: apt install python3-venv)." >&2; exit 1; }; }
	$(BIN)/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@
