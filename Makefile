# Two commands on a fresh machine: `make test` and `make demo`. Each sets itself up in .venv first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test check lint slow clean

test: $(INSTALLED)
	@echo "== the default tests (CPU only, offline)"
	$(BIN)/pytest -q -n 2

check: lint test slow

lint: $(INSTALLED)
	@echo "== lint, format, types"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: $(INSTALLED)
	@echo "== the slow tests (several minutes)"
	$(BIN)/pytest -q -n 2 -m "slow and not gpu"

demo: $(INSTALLED)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/scenes_ablation.py --out demo

# pip installs the project and its tools once, and again only when pyproject.toml has changed.
$(INSTALLED): pyproject.toml
	@echo "== setting up .venv (once; downloads PyTorch and friends, several GB)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mlalign needs Python 3.11 or newer; say which: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --upgrade "pip>=25.1"
	$(BIN)/pip install -q -e . --group dev
	@touch $(INSTALLED)

clean:
	rm -rf .venv demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
