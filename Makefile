PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Rebuilt when the dependencies change; an interrupted install leaves no stamp.
STAMP := $(VENV)/.installed
# Processes that share the tests (tests/conftest.py).
WORKERS ?= 2
RUN := results/demo-$(shell date -u +%Y%m%d-%H%M%S)

.PHONY: demo test lint docs unit bytecode bench test-gpu test-xla test-lowest clean

demo: $(STAMP) bytecode  ## measure this machine, write reports/demo.md and the page demo.html
	$(BIN)/dabench sweep demo --out $(RUN)
	$(BIN)/dabench report $(RUN) --name demo
	$(BIN)/dabench report $(RUN) --name demo --html

test: lint docs unit  ## everything CI checks

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers 2
	$(BIN)/lint-imports

docs: $(STAMP)  ## the site, in docs/build/index.html
	$(BIN)/python -m sphinx -q -W -j 2 -b html docs docs/build

unit: $(STAMP) bytecode
	$(BIN)/python -m pytest -n $(WORKERS)

# Where Python is told not to keep bytecode, each of many processes would compile the package anew.
bytecode: $(STAMP)
	$(BIN)/python -m compileall -q bench models

bench: $(STAMP)  ## the figures the project promises, measured here (some minutes)
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only

test-gpu: $(STAMP)  ## on a machine with an NVIDIA GPU: proves its paths for the reports
	DABENCH_PROVE=1 $(BIN)/python -m pytest tests/gpu

# torch_xla needs the torch it was built for: a venv of its own.
test-xla: $(VENV)-xla/.installed  ## the XLA device, on its CPU client
	PJRT_DEVICE=CPU $(VENV)-xla/bin/python -m pytest tests/xla -p no:cacheprovider

$(VENV)-xla/.installed: pyproject.toml
	test -x $(VENV)-xla/bin/python || $(PYTHON) -m venv $(VENV)-xla
	$(VENV)-xla/bin/python -m pip install --quiet torch==2.9.1 torchvision==0.24.1 torch_xla==2.9.0
	$(VENV)-xla/bin/python -m pip install --quiet --editable . hypothesis pytest pytest-benchmark
	touch $@

# Older versions of torch warn of themselves.
OLD_TORCH = -W 'ignore:`torch.jit.script_method` is deprecated:DeprecationWarning' \
	-W 'ignore:Please use the new API settings to control TF32:UserWarning'

# The lowest versions that pyproject.toml allows.
test-lowest: $(VENV)-lowest/.installed  ## the unit tests under them
	$(VENV)-lowest/bin/python -m pytest tests/unit -p no:cacheprovider -m "not extras" \
		--ignore tests/unit/test_runtimes.py $(OLD_TORCH)

$(VENV)-lowest/.installed: pyproject.toml
	test -x $(VENV)-lowest/bin/python || $(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) tests/helpers/lowest.py > $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --editable ".[lowest]" \
		--constraint $(VENV)-lowest/constraints.txt
	touch $@

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-xla $(VENV)-lowest .mypy_cache .pytest_cache .ruff_cache .hypothesis
