# The whole life of the project in a few words; `make help` lists them.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

# Where pip finds a CPU build of torch (PyTorch's own CPU wheel index); empty: wherever pip is set up to look.
TORCH_INDEX ?=

.PHONY: help setup demo test test-fast check audit fmt docs bench clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(INSTALLED)  ## create .venv with everything pinned

$(INSTALLED): requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' requirements.txt)"
	$(RUN) -m pip install --quiet -r requirements.txt -r requirements-dev.txt -c constraints.txt
	@touch $@

demo: setup  ## crawl, build, serve and ask a real documentation site, then clean up (KEEP=1 keeps the index)
	@$(RUN) examples/demo.py $(if $(KEEP),--keep)

test: setup check  ## everything: style, types, layout, all tests
	$(RUN) -m pytest

test-fast: setup  ## the tests that need no Ray cluster
	$(RUN) -m pytest -m "not cluster"

check: setup  ## ruff (with its security rules), mypy --strict, layout, dependencies, generated docs up to date
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pip check
	$(RUN) -m pytest -q tests/test_layout.py tests/test_docs.py tests/test_dependencies.py

audit: setup  ## known vulnerabilities of everything pinned (needs the internet; SECURITY.md says why it is not in check)
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit==2.10.1
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

fmt: setup  ## format and fix what can be fixed
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: setup  ## regenerate docs/cli.md, settings.md, metrics.md, the rules of Prometheus and the dashboard
	$(RUN) docs/generate.py

bench: setup  ## measure the numbers of the README (needs Debian's python3-doc; about 20 minutes)
	$(RUN) bench/python_docs.py

clean:  ## remove the venv and caches (never checkpoints/)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
