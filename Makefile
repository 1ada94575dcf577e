# `make repro [RECIPE=name]` and `make test` need Python >= 3.11, git and make, and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SLOWEST := tests/test_pipeline.py tests/test_recipes.py
TESTS := $(SLOWEST) $(filter-out $(SLOWEST),$(sort $(wildcard tests/test_*.py tests/torture/test_*.py)))
TRIALS ?= 100

# Set in many containers: every stage would compile torch and Lightning anew, which takes longer than it does.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: repro test test-all torture coverage lint audit ui clean

repro: $(READY)  ## the whole pipeline, of params.yaml or of recipes/$(RECIPE).yaml
	$(if $(filter command,$(origin recipe)),$(error recipe=$(recipe): it is RECIPE=$(recipe)))
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/repro.py $(if $(RECIPE),'$(RECIPE)')

test: $(READY)-dev  ## everything that matters, lint included; files of tests side by side
	@$(MAKE) --no-print-directory lint
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest --numprocesses auto --dist loadfile \
	  --no-loadscope-reorder $(TESTS)

test-all: test  ## and the long ones; with REQUIRE_SERVERS=1, none is skipped for want of PostgreSQL or sshd
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m long -rs --numprocesses auto --dist loadfile

torture: $(READY)-dev  ## an hour and longer of chance, kills and hostile input: $(TRIALS) % of each campaign's trials
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/torture --trials $(TRIALS) --timeout 36000

coverage: $(READY)-dev  ## which branches of search, scoring, cleaning, batches and settings no test runs
	@mkdir -p work && rm -f work/coverage*
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/coverage run -m pytest -q --numprocesses auto --dist loadfile \
	  $(patsubst %,tests/test_%.py,search params scoring evaluate clean tokenize download batch)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

lint: $(READY)-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

audit:  ## known vulnerabilities of all that the lock files name; asks PyPI
	@$(PYTHON) -m venv work/audit
	@work/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	@work/audit/bin/pip-audit --no-deps --disable-pip $(patsubst %,-r %,$(wildcard requirements*.lock))

ui: $(READY)  ## MLflow on http://127.0.0.1:5000
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/ui.py

# The environment is made anew when a lock file or pyproject.toml has changed, and only then.
# Compiling all of every package would take as long as installing: Python compiles what it imports.
$(READY): requirements.lock pyproject.toml
	@echo "making the environment in $(VENV), a minute or two"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rnnmt needs Python >= 3.11")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-compile -r requirements.lock
	@# The lock is of the CPU build: PyPI's build for Linux needs libraries of CUDA besides.
	@$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep ^torch== requirements.lock)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(READY)-dev: $(READY) requirements-dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-compile -r requirements-dev.lock
	@touch $@

clean:  ## remove what can be made again, but for the caches of DVC and the results
	rm -rf $(VENV) work .mypy_cache .ruff_cache .pytest_cache
