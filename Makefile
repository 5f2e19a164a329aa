# What a person types. Every target sets up what it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
STORAGE ?= $(HOME)/proxyless
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: help search test unit ray test-all slow-ray slow-rest slow-timed test-long lint cluster stop ui bench bench-quick bench-checks bench-parts ground-truth clean

help:
	@echo "make search    search, retrain and record a network for a phone (jobs/search_mobile.yaml)"
	@echo "make ui        MLflow on http://127.0.0.1:5000, where results are compared"
	@echo "make cluster   a local Ray that stays, for 'ray job submit jobs/search_mobile.yaml'"
	@echo "make stop      stop that Ray"
	@echo "make test      unit tests and one small job on Ray; make unit: without the job;"
	@echo "               make test-all: the slow ones too; make lint: ruff and mypy"
	@echo "make bench     the evidence in tests/benchmarks/RESULTS.md (two hours and a half on two cores;"
	@echo "               goes on where it was stopped); make bench-checks: random networks and longer"
	@echo "               trainings beside it; make bench-quick: to see that it runs; make bench-parts: all"
	@echo "               other figures"
	@echo "make ground-truth  train every network of the tabular benchmark again (an hour and a half on two cores)"
	@echo "make clean     remove .venv and caches; results stay in $(STORAGE)"

.venv/installed: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; say e.g.: make PYTHON=python3.11"; exit 2; }
	@echo "installing into .venv (some minutes, 7 GB) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install -c constraints.txt -r requirements.txt
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[executorch,onnxruntime]'
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	@$(PIP) install -c constraints.txt -r requirements-dev.txt
	@touch $@

search: .venv/installed
	@$(BIN)/proxyless submit jobs/search_mobile.yaml

cluster: .venv/installed
	@$(BIN)/python -m cluster.connect head

stop: .venv/installed
	@$(BIN)/python -m cluster.connect stop

ui: .venv/installed
	@mkdir -p $(STORAGE)
	MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui --host 127.0.0.1 --port 5000 \
	  --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///$(STORAGE)/mlflow.db}

# Lanes run in parallel, because tests that need a Ray wait often. Tests that measure time run alone.
# tests/conftest.py gives each process one OpenMP thread.
LANES := --no-print-directory --jobs=2 --output-sync=target
# Each process of pytest or Ray would compile all files again: a third of the time to collect tests.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/python -m pytest
WORKERS := --numprocesses logical --maxprocesses 4 --dist loadfile

test: .venv/installed-dev
	@$(MAKE) $(LANES) unit ray

unit: .venv/installed-dev
	$(PYTEST) $(WORKERS)

ray: .venv/installed-dev
	$(PYTEST) -m "ray and not slow"

test-all: test
	@$(MAKE) $(LANES) slow-ray slow-rest
	@$(MAKE) --no-print-directory slow-timed

slow-ray:
	$(PYTEST) -m "slow and ray and not timed and not long"

slow-rest:
	$(PYTEST) -m "slow and not ray and not timed and not long"

slow-timed:
	$(PYTEST) -m "slow and timed"

test-long: .venv/installed-dev
	$(PYTEST) -m long

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tests.support.docstrings

bench: .venv/installed-dev
	$(BIN)/python tests/benchmarks/bench.py

bench-checks: .venv/installed-dev
	$(BIN)/python tests/benchmarks/bench.py --only random longer

bench-quick: .venv/installed-dev
	$(BIN)/python tests/benchmarks/bench.py --quick

bench-parts: .venv/installed-dev
	for one in main_job memory steps depthwise latency_tables two_devices budgets glyph_networks supernet_ranking alpha_schedule search_quality sharing \
	    traffic checkpoint_cost recovery scaling sweep recording data; do \
	  $(BIN)/python tests/benchmarks/$$one.py || exit 1; done

ground-truth: .venv/installed-dev
	$(BIN)/python tests/benchmarks/ground_truth.py

clean:
	rm -rf .venv *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
