# Two commands on a fresh machine: `make test` and `make demo`. Each sets up .venv first.
#
#   make PYTHON=python3.13 test                      with another Python
#   make LOWEST=1 VENV=.venv-lowest test             with the lowest versions that pyproject.toml allows
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
INSTALLED := $(VENV)/installed-$(VERSION)$(if $(LOWEST),-lowest)
# Old versions warn of each other; there, warnings are not errors.
PYTEST := $(BIN)/pytest -q -n 2 $(if $(LOWEST),-W default)

.PHONY: demo test check lint slow clean

test: $(INSTALLED)
	@echo "== the default tests (CPU only, offline)"
	$(PYTEST)

check: lint test slow

lint: $(INSTALLED)
	@test -d typings/mlalign/extract || { \
		echo "typings/mlalign/* are no symbolic links here, and mypy needs them. In a git checkout:"; \
		echo "    git config core.symlinks true && git checkout -- typings"; \
		echo "and unpack an archive with a program that keeps symbolic links, such as tar."; \
		exit 1; }
	@echo "== lint, format, types"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: $(INSTALLED)
	@echo "== the slow tests (several minutes)"
	$(PYTEST) -m "slow and not gpu"

demo: $(INSTALLED)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python benchmarks/scenes_ablation.py --out demo

# Installs mlalign and its tools once, and again when pyproject.toml or the Python has changed.
$(INSTALLED): pyproject.toml
	@echo "== setting up $(VENV) (once; downloads PyTorch and friends, several GB)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mlalign needs Python 3.11 or newer; choose one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install -q --upgrade "pip>=25.1" $(if $(LOWEST),uv)
	$(if $(LOWEST),$(BIN)/uv pip install -q --python $(BIN)/python --resolution lowest-direct,$(BIN)/pip install -q) -e . --group dev
	@touch $(INSTALLED)

clean:
	rm -rf .venv .venv-* demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
