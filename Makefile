# Two commands do all set-up: `make demo` runs the main job, `make test` passes the tests.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := $(VENV)/.peers
NUMERICAL := symmetry models posteriors inference alignment diagnostics
# Compiled modules are kept, whatever the environment says: tests start many processes.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test test-all test-types coverage test-slow lint format types docs bench claim wheel-check clean

demo: $(INSTALLED)
	$(BIN)/bnn-symm compare quickstart

test: $(INSTALLED)
	$(PYTEST) -m "not slow and not thorough"

test-all: $(INSTALLED)
	$(PYTEST) -m "thorough and not slow"

# The fast tests of the numerical layers, with all shapes and types checked at run time.
test-types: $(INSTALLED)
	$(PYTEST) -m "not slow and not thorough" --jaxtyping-packages=bnn_symm,beartype.beartype \
		$(NUMERICAL:%=tests/%)

# The lines of the package that the tests run: at least 90 %.
coverage: $(INSTALLED)
	$(PYTEST) -m "not slow" --cov=bnn_symm --cov-report=term --cov-fail-under=90

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)
	$(BIN)/pyright

docs: $(INSTALLED)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --jobs auto docs docs/_build/html

bench: $(PEERS)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m benchmarks.run

# One claim of a paper, judged: `make claim NAME=lim_w_asymmetric_is_connected`. Experiments are kept in runs/claims.
claim: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m claims run $(NAME)
	$(BIN)/python -m claims page

# The wheel alone in a fresh environment of $(PYTHON): fit, predict, report, a study, optional extras.
wheel-check:
	tests/wheel_check.sh $(PYTHON)

clean:
	rm -rf $(VENV)

# The constraints hold the versions that the tests pass with. Without CPU-only torch named first, pip would fetch several
# gigabytes of CUDA packages.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]" --group dev --group docs
	@touch $@

# What the benchmarks measure against; torch stays as it is.
$(PEERS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group peers
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --group peers-without-dependencies
	@touch $@
