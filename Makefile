# `make run`: the main job from a fresh clone. `make test`: the whole gate. Both may be run again.
PYTHON ?= python3
PY := .venv/bin/python
OUT ?= runs/glyphs

.PHONY: run test test-all bench bench-quick lint format types clean

run: .venv/.run
	$(PY) -m datarax train glyphs --out "$(OUT)" --overwrite

test: lint types
	XLA_FLAGS="$$($(PY) tools/quick_flags.py)" $(PY) -m pytest -m "not slow" -n auto --dist loadgroup

test-all: lint types
	$(PY) -m pytest -n auto --dist loadgroup

lint: .venv/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: .venv/.dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: .venv/.dev
	$(PY) -m mypy

bench: .venv/.bench
	$(PY) benchmarks/run.py --out docs/benchmarks.md

bench-quick: .venv/.bench
	$(PY) benchmarks/run.py --quick

.venv/.made:
	$(PYTHON) -m venv .venv
	touch $@

.venv/.run: pyproject.toml | .venv/.made
	$(PY) -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/.dev: pyproject.toml | .venv/.made
	$(PY) -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

.venv/.bench: .venv/.dev
	$(PY) -m pip install --quiet --disable-pip-version-check -e ".[dev,bench]"
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache build dist
