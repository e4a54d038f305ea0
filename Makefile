# Two commands, from a fresh clone on a machine with Python 3.11+, make and git:
#   make bench   time and gate training on this machine's GPU, or on its CPU
#   make test    the tests of perfsuite itself
# Each installs what it needs into .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A stamp newer than pyproject.toml says that the environment is whole.
STAMP := $(VENV)/.installed

.PHONY: bench test check figures picture method transcript sabotage install clean
.DEFAULT_GOAL := bench

bench: $(STAMP)
	$(BIN)/python -m pytest benchmarks --benchmark-save=bench

test: $(STAMP)
	$(BIN)/python -m pytest tests

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

# The comparison that README.md shows: plants a slowdown in a clone, and finds it.
transcript: $(STAMP)
	$(BIN)/python tools/transcript.py README.md

# Plants every known bug that this machine can show, and writes docs/sabotage.md.
sabotage: $(STAMP)
	cd tests && ../$(BIN)/python -m sabotage

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "perfsuite needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

clean:
	rm -rf $(VENV) .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
