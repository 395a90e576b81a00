# `make demo` and `make test` are all a newcomer needs: both make their own environment in .venv.
# `make help` lists the rest.

PYTHON ?= python3
VENV   ?= .venv
# The demo's data: digits (ships with scikit-learn), fashion (Fashion-MNIST), imagenet (EfficientNet-Lite0).
DATA   ?= digits
# A folder that holds the data, where they are not in the usual place.
DATA_FOLDER ?=
# More options for the demo (DEMO_ARGS=--quick) and for pytest (TEST_ARGS="-k wire").
DEMO_ARGS ?=
TEST_ARGS ?=
# The server that `make conformance` asks.
ADDRESS ?=
# More options for `make bench` and `make bench-serve`, and where the latter installs other servers (2.5 GB).
BENCH_ARGS ?=
PEERS ?= build/peers
# What `make breaking` compares the contracts with.
AGAINST ?= origin/main

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := protos server client compressor benchmarks demo tests tools

.DEFAULT_GOAL := help
.PHONY: help demo test test-wheel lint format types contracts protos protos-check breaking bench conformance figures clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 18

# constraints.txt holds the versions that were tested together; without it a release of somebody else's
# package could break a fresh clone.
$(VENV)/.base: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "flyweight needs Python 3.11 or later: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.base
	@echo "Installing flyweight with PyTorch and onnxruntime into $(VENV); this takes a minute or more, once."
	$(PIP) install --quiet -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "Installing the test tools into $(VENV)."
	$(PIP) install --quiet -c constraints.txt --group test
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) install --quiet -c constraints.txt --group lint --group protos
	@touch $@

demo: $(VENV)/.demo ## Compress, hot-load, serve and compare on real data (DATA=digits|fashion|imagenet)
	$(BIN)/python -m demo --data $(DATA) $(if $(DATA_FOLDER),--data-folder '$(DATA_FOLDER)') $(DEMO_ARGS)

test: $(VENV)/.test ## Run the test suite (TEST_ARGS="-k name" for a part of it)
	$(BIN)/python -m pytest $(TEST_ARGS)

test-wheel: $(VENV)/.lint ## Build the wheel and test it in clean environments
	bash tools/test_wheel.sh $(BIN)/python

lint: $(VENV)/.lint ## Style, formatting, import contracts
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/lint-imports

format: $(VENV)/.lint ## Format the code
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: $(VENV)/.lint ## Check types with mypy (strict) and pyright
	$(BIN)/mypy
	$(BIN)/pyright

protos: $(VENV)/.lint ## Write the generated code of the contracts
	$(BIN)/python tools/generate_protos.py

protos-check: protos ## Fail when the committed generated code or the contracts' style is off
	@test -z "$$(git status --porcelain -- protos)" \
	  || { git --no-pager diff --stat -- protos; git status --short -- protos; \
	       echo "The generated code differs from what is committed: run 'make protos' and commit." >&2; exit 1; }
	cd protos && $(abspath $(BIN))/buf lint && $(abspath $(BIN))/buf format --diff --exit-code

breaking: $(VENV)/.lint ## Fail when the contracts broke since AGAINST (default origin/main)
	bash tools/check_breaking.sh $(abspath $(BIN))/buf $(AGAINST)

bench: $(VENV)/.test ## Time the server against bare gRPC servers and raw onnxruntime (BENCH_ARGS=--quick)
	$(BIN)/python -m benchmarks.serving $(BENCH_ARGS)

bench-serve: $(VENV)/.test ## The same beside six other servers, each in its own environment below PEERS
	$(BIN)/python -m benchmarks.serving --peers all --isolated --environments $(PEERS) $(BENCH_ARGS)

figures: $(VENV)/.demo ## Write the figures of the last demo into the README
	$(BIN)/python -m tools.readme_figures

clean: ## Remove what was built, and the environment
	rm -rf build dist $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
