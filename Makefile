# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Pulumi's SDKs are large: the programs in infra/ have an environment of their own.
INFRA  := .venv-infra
INFRA_READY := $(INFRA)/.ready

# Hundreds of processes start here: each would compile every module anew where this is set, as in many images.
unexport PYTHONDONTWRITEBYTECODE

# The longest first, so that two side by side end together.
CASES  := sick_zones sick_clouds sick_versions autoscaling good_deploys

.PHONY: demo test check soak soak-tests soak-cases $(CASES:%=cases-%) infra test-infra lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   deploy v2 over v1 across six zones in the built-in lab (ARGS=--json for one JSON object)"
	@echo "make test   all checks and tests"
	@echo "make soak   swarms of simulated histories for MINUTES=10; ends with an error when one breaks an invariant"
	@echo "make soak-tests  the tests that are too slow for make test, without the hard cases (ARGS to choose)"
	@echo "make soak-cases  the hard cases under live traffic, and docs/cases.md (about an hour; half of it with -j2)"
	@echo "make check  ruff, mypy, import contracts, tidy"
	@echo "make test-infra  the Pulumi programs, without a cloud (make infra: only their environment)"

# uv installs the locked set in seconds; it comes from PyPI like everything else.
$(READY): requirements/dev.txt requirements/uv.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/uv.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt requirements/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(READY)

$(INFRA_READY): $(READY) requirements/infra.txt
	@test -x $(INFRA)/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(INFRA)
	@$(BIN)/uv pip sync --quiet --python $(INFRA)/bin/python --require-hashes requirements/infra.txt
	@$(BIN)/uv pip install --quiet --python $(INFRA)/bin/python --no-deps --no-build-isolation --editable .
	@touch $(INFRA_READY)

infra: $(INFRA_READY)

demo: $(READY)
	@$(BIN)/failout demo $(ARGS)

check: $(READY)
	$(BIN)/ruff check orchestrator infra tests benchmarks docs
	$(BIN)/ruff format --check orchestrator infra tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest tests/tidy

# Most tests wait for real processes, so four at a time fit two cores. Those with users who give up after a second, or with
# a time limit, get more of them: they wait most of the time, three at a time.
TIMED := $(wildcard tests/lab/test_*_lab.py tests/lab/test_arm_http.py tests/lab/test_aws_dataplane.py tests/lab/test_dataplane_*.py \
  tests/lab/test_traffic*.py tests/contract/test_takeover.py tests/contract/test_database_away.py)

test: check
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder --ignore tests/e2e --ignore tests/tidy --ignore tests/infra $(TIMED:%=--ignore %) $(ARGS)
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(TIMED) $(ARGS)
	$(BIN)/pytest -n 2 --maxschedchunk 1 tests/e2e $(ARGS)
	$(MAKE) test-infra

# Each soak has seeds of its own (fewer than 1,000 histories a second): START=SEED repeats one.
MINUTES ?= 10
START   ?= $(shell date +%s)000
soak: $(READY)
	$(BIN)/failout sim --minutes $(MINUTES) --start $(START) --jobs 2

soak-tests: $(READY)
	$(RUN) $(BIN)/pytest -m soak --ignore tests/infra $(CASES:%=--ignore tests/e2e/test_%.py) $(ARGS)

# Every row of docs/cases.md comes from one run of this. `make -j2 soak-cases` runs two labs side by side; RUN goes before
# each pytest (a queue for a shared machine).
soak-cases: $(READY)
	@: > docs/cases.md
	$(MAKE) --keep-going $(CASES:%=cases-%)

$(CASES:%=cases-%): cases-%:
	FAILOUT_CASES=$(CURDIR)/docs/cases.md $(RUN) $(BIN)/pytest tests/e2e/test_$*.py -m soak $(ARGS)

test-infra: $(INFRA_READY)
	$(INFRA)/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder tests/infra -rs $(ARGS)

lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	  --extra lab --extra postgres --group dev --group build pyproject.toml --output-file requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	  --extra lab --extra infra --group dev --group build pyproject.toml --output-file requirements/infra.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	  requirements/uv.in --output-file requirements/uv.txt

clean:
	rm -rf $(VENV) $(INFRA) .failout build *.egg-info
