PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Rebuilt when the dependencies change; an interrupted install leaves no stamp.
STAMP := $(VENV)/.installed
RUN := results/demo-$(shell date -u +%Y%m%d-%H%M%S)

.PHONY: demo test lint unit bench clean

demo: $(STAMP)  ## measure this machine and write reports/demo.md
	$(BIN)/dabench sweep demo --out $(RUN)
	$(BIN)/dabench report $(RUN) --name demo

test: lint unit  ## everything CI checks

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(STAMP)
	$(BIN)/python -m pytest

bench: $(STAMP)  ## the figures the project promises, measured here (some minutes)
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
