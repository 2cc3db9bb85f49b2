# The same verbs for people and CI. `make run` is all that a newcomer needs.
PYTHON ?= python3
VENV   := .venv
STAMP  := $(VENV)/.installed
TEXTS  ?= .genpipe/texts
PEERS  ?= .genpipe/peers
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Python keeps what it compiles, also where the environment forbids it: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run zoo test test-slow check chaos bench clean install private

help:
	@echo 'make run    install everything, fetch the data, run what is out of date of the corpora and of the set quick, name the report'
	@echo 'make zoo    the same for all recipes of params.yaml'
	@echo 'make test   install everything, pass the tests (test-slow: those on many servers and kills)'
	@echo 'make check  format, lint, types, import contracts'
	@echo 'make chaos  kill what runs a small pipeline, twenty times, and storm the lock; most of an hour'
	@echo 'make bench  ratios against named peers, alternated on this machine'
	@echo 'make clean  remove the environment, caches and unfinished runs (data/ and artifacts/ stay)'

run: install
	@genpipe data encode@tang --set quick
	@python -m flows.retrain encode@tang --set quick

zoo: install
	@genpipe data
	@python -m flows.retrain

test: install
	python -m pytest -m 'not slow' -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slow: install
	python -m pytest -m slow

check: install
	ruff format --check .
	ruff check .
	pyright
	lint-imports

chaos: install
	python -m tests.chaos
	python -m tests.chaos --storm

bench: install
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -P -m pip install -qq --disable-pip-version-check -r benchmarks/peers/requirements.txt
	python -m benchmarks.texts $(TEXTS)
	for name in chinese article english scaling memory durability; do \
		python -m benchmarks.corpus $$name --texts $(TEXTS) --peers $(PEERS)/bin/python || exit 1; done
	python -m benchmarks.training
	python -m benchmarks.gan
	python -m benchmarks.masked_lm
	python -m benchmarks.start
	python -m benchmarks.numerics
	python -m benchmarks.forty
	test -x $(PEERS)/workflow/bin/python || $(PYTHON) -m venv $(PEERS)/workflow
	$(PEERS)/workflow/bin/python -P -m pip install -qq --disable-pip-version-check -r benchmarks/peers/requirements-workflow.txt
	python -m benchmarks.workflow --kedro $(PEERS)/workflow/bin/python
	test -x $(PEERS)/flows/bin/python || $(PYTHON) -m venv $(PEERS)/flows
	$(PEERS)/flows/bin/python -P -m pip install -qq --disable-pip-version-check -r benchmarks/peers/requirements-flows.txt
	python -m benchmarks.flows --peers $(PEERS)/flows/bin/python

clean:
	rm -rf $(VENV) .genpipe .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info

install: $(STAMP)

# What DVC remembers of hashes is for this user alone, also where dvc is called by hand. A directory that is named already stays.
private:
	@test ! -e .dvc/config || test -d "$$(dvc config --local core.site_cache_dir 2>/dev/null)" || { \
		mkdir -p -m 700 .dvc-state .dvc-state/repo && chmod 700 .dvc-state .dvc-state/repo && \
		dvc config --local core.site_cache_dir '$(CURDIR)/.dvc-state'; }

$(STAMP): requirements.lock pyproject.toml
	@command -v git >/dev/null || { echo 'genpipe: git is not there; install it (Debian: apt-get install git)' >&2; exit 2; }
	@command -v npm >/dev/null || echo 'genpipe: no npm found; three archives of the data come from it, so install Node.js or give them to genpipe data --archive' >&2
	@command -v $(PYTHON) >/dev/null || { echo 'genpipe: Python 3.11 or newer is needed, and there is no $(PYTHON); install it, or run make PYTHON=…' >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "genpipe: Python 3.11 or newer is needed, and this is $$($(PYTHON) -V); run make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo 'genpipe: $(PYTHON) cannot make a virtual environment (Debian: apt-get install python3-venv)' >&2; exit 2; }
	@echo 'installing the locked packages into $(VENV) (a few minutes, once)'
	@$(VENV)/bin/python -P -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(VENV)/bin/python -P -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(MAKE) --no-print-directory private
	@touch $@
