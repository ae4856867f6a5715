# make demo   a photograph to about a thousand bytes and back (needs nothing but Python >= 3.11 and a package index)
# make test   everything a commit must pass: lint, format, types, tests, in a fresh environment
# make services  the tests that drive a browser, a Ray cluster, a running server, an emulated Arm machine, and the fuzzer
#             (Chromium, strace and qemu-user-static must be installed)
# make check  the same as make test in the environment that it left
# make docs   the documentation as a folder of pages, site/
# PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A bare torch may fetch gigabytes of GPU libraries: this version first, and nothing may replace it.
TORCH := torch==2.13.0

.PHONY: demo test check services docs clean

demo: $(VENV)/demo.ok
	$(BIN)/python scripts/demo.py

test: $(VENV)/test.ok
	$(MAKE) --no-print-directory check

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

services: $(VENV)/services.ok
	$(BIN)/python -m pytest -q --services

docs: $(VENV)/test.ok
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) build dist demo site .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else "sprdiff needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# The photograph of the demonstration comes out of scikit-learn's wheel; the library itself is not used,
# so nothing that it needs is installed.
$(VENV)/demo.ok: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps scikit-learn
	touch $@

$(VENV)/test.ok: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check $(TORCH)
	echo $(TORCH) > $(VENV)/constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[dev,train,eval,sd,batch,serve,docs]'
	touch $@

$(VENV)/services.ok: $(VENV)/test.ok
	$(BIN)/python -m pip install -q --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[ray,fuzz]'
	touch $@
