# make demo   a photograph to about a thousand bytes and back (needs nothing but Python >= 3.11 and a package index)
# make test   everything a commit must pass: lint, format, types, tests, in a fresh environment
# make services  the tests that drive a browser, a Ray cluster, a running server, an emulated Arm machine, and the fuzzer
#             (Chromium, strace and qemu-user-static must be installed)
# make check  the same as make test in the environment that it left
# make web    the page that opens files in a browser, into src/sprdiff/viewer/page (Node and npm must be installed)
# make docs   the documentation as a folder of pages, site/
# PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
# How many files of tests run at the same time.
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
# A bare torch may fetch gigabytes of GPU libraries: this version first, and nothing may replace it.
TORCH := torch==2.13.0

.PHONY: demo test check services web web-check docs clean

demo: $(VENV)/demo.ok
	$(BIN)/python scripts/demo.py

test: $(VENV)/test.ok
	$(MAKE) --no-print-directory check

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory web-check; \
	else echo "LEFT OUT: web/ is not built, linted, typed or tested, for there is no npm here"; fi
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

services: $(VENV)/services.ok web
	npm --prefix web run --silent build -- --tests
	$(BIN)/python -m pytest -q --services

web: web/node_modules/.package-lock.json
	npm --prefix web run --silent build

web-check: web
	npm --prefix web run --silent check

docs: $(VENV)/test.ok
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Nothing that comes with the packages is run: those that are used need no set-up.
web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	cd web && npm ci --silent --ignore-scripts
	touch $@

clean:
	rm -rf web/node_modules web/build src/sprdiff/viewer/page
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
