# Needs Python >= 3.11 with venv, and make. `make train` and `make test` do the whole set-up.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# Processes that the tests are shared among, file by file; each takes up to 6 GB.
WORKERS ?= 2
# Files go to the processes in alphabetical order. The default order puts small, slow files last.
SHARED := --dist loadfile --no-loadscope-reorder
TRAIN ?= env=smax_3m total_timesteps=200_000
BENCHMARKS ?= $(filter-out __init__,$(basename $(notdir $(wildcard benchmarks/*.py)))) \
  $(notdir $(patsubst %/__main__.py,%,$(wildcard benchmarks/*/__main__.py)))

.PHONY: setup train test slow faults lint shape format docs bench plan-tools

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "jmarl needs Python 3.11 or newer, and '$(PYTHON)' is not; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "installing jmarl and its dependencies into $(VENV)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# XLA's compilers for devices that are not there, in the versions that belong to the installed JAX.
plan-tools: setup
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[plan-gpu,plan-tpu]'

train: setup
	$(RUN) -m jmarl.systems.mam_ppo $(TRAIN)

test: setup
	$(RUN) -m pytest -m "not slow" -n $(WORKERS) $(SHARED)

slow: setup
	$(RUN) -m pytest -n $(WORKERS) $(SHARED)

faults: setup
	$(RUN) -m tools.faults --slow -n $(WORKERS) $(SHARED)

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright
	$(VENV)/bin/lint-imports

shape: setup
	$(RUN) tools/shape.py

format: setup
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: setup
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

bench: setup
	for name in $(BENCHMARKS); do $(RUN) -m benchmarks.$$name || exit 1; done
