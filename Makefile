# Two commands, from a fresh clone on a machine with Python 3.11+, make and git:
#   make bench   time and gate training on this machine's GPU, or on its CPU
#   make test    the tests of perfsuite itself; make test-fast leaves the slow ones out
# Each installs what it needs into .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A stamp newer than pyproject.toml says that the environment is whole.
STAMP := $(VENV)/.installed

# Every worker imports torch: more of them than this start longer than they save.
PYTEST := $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=8 --dist=worksteal
TESTS := $(PYTEST) tests
# Python 3.12 and newer count lines at next to no cost; on 3.11 the fast tests would take twice as long.
COVER = $(shell $(BIN)/python -c 'import sys; print("--cov --cov-report=term:skip-covered" * (sys.version_info >= (3, 12)))')

.PHONY: bench tutorial ledger test test-fast examples wheel-test check figures picture method map transcript sabotage site
.PHONY: install clean gpu-evidence first-table ladder ladder-page
.DEFAULT_GOAL := bench

bench: $(STAMP)
	$(BIN)/python -m pytest benchmarks --benchmark-save=bench

# The tutorial whole: ten epochs of its full network; broken off, it goes on where it was.
tutorial: $(STAMP)
	$(BIN)/python -m pytest benchmarks/test_tutorial.py --perf-workload=tutorial --perf-epochs=10 \
	    --perf-report=.benchmarks/tutorial

# What a step does, counted: for a pull request, in seconds, without a GPU.
ledger: $(STAMP)
	$(BIN)/python -m pytest benchmarks -k ledger

# The fast tests first, so that a plain mistake is told soon. Coverage is theirs alone: in the
# processes of the slow ones it would take a third longer, most of it while they import torch.
test: $(STAMP)
	COVERAGE_CORE=sysmon $(TESTS) -m "not slow" $(COVER)
	$(TESTS) -m "slow and not examples"

test-fast: $(STAMP)
	$(TESTS) -m "not slow"

# The suites of examples/, as their users run them.
examples: $(STAMP)
	$(PYTEST) tests/examples

# The wheel, installed alone in a fresh environment.
wheel-test: $(STAMP)
	.ci/wheel-test $(BIN)/python

# What .pre-commit-config.yaml runs before a commit, on all files.
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The figures of README.md, from a run: make figures RUN=docs/runs/NAME.json
figures: $(STAMP)
	$(BIN)/python tools/figures.py $(RUN) README.md

# The picture of a report that README.md shows, in a Chromium that the machine has.
picture: $(STAMP)
	$(BIN)/python tools/picture.py $(RUN) docs/report.png

# The error rates that docs/method.md shows, from the studies.
method: $(STAMP)
	$(BIN)/python tools/error_rates.py docs/studies docs/method.md

# The verdicts of a new user's first session, which docs/start.md shows.
first-table: $(STAMP)
	$(BIN)/python tools/first_table.py docs/start.md

# How near the tutorial's step is to what this machine can do: climbs, and writes docs/ladder.md.
ladder: $(STAMP)
	rm -f .benchmarks/ladder.json
	$(BIN)/python -m pytest benchmarks/test_ladder.py --perf-workload tutorial --perf-budget 40 \
	    --benchmark-json=.benchmarks/ladder.json
	$(BIN)/python tools/ladder_page.py .benchmarks/ladder.json docs

# docs/ladder.md again, from the runs in docs/runs.
ladder-page: $(STAMP)
	$(BIN)/python tools/ladder_page.py docs

# The list of modules that docs/architecture.md shows, from their docstrings.
map: $(STAMP)
	$(BIN)/python tools/module_map.py docs/architecture.md

# The comparison that README.md and its page show: plants a slowdown in a clone, and finds it.
transcript: $(STAMP)
	$(BIN)/python tools/transcript.py README.md docs/before-after.md

# Plants every known bug that this machine can show, and writes docs/sabotage.md.
sabotage: $(STAMP)
	cd tests && ../$(BIN)/python -m sabotage

# All that a GPU is needed for, in ten minutes: writes docs/runs/gpu-DATE-HARDWARE, and goes on there.
gpu-evidence: $(STAMP)
	$(BIN)/python tools/gpu_evidence.py --device cuda

# The pages of docs/ as a site, in site/; a warning is an error.
site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "perfsuite needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

clean:
	rm -rf site $(VENV) .benchmarks .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
