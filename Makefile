PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORPUS ?= corpus/documents

.PHONY: install demo ui test test-slow check bench clean

install: $(VENV)/.installed

# torch first and pinned: an open requirement can pull builds that this machine has no use for.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	@$(BIN)/python -m indexer.demo "$(CORPUS)"

$(VENV)/.installed-ui: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[ui]'
	@touch $@

ui: $(VENV)/.installed-ui
	@$(BIN)/ui

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not slow"

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow

bench: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks $(if $(DATA),--data $(DATA))

clean:
	rm -rf $(VENV) build dist *.egg-info
