# Everything a user types. `make` alone prints what there is; scripts/ and `harness` do the work.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HARNESS := $(BIN)/harness
DESIGN ?= combined
TOOLCHAIN ?= 12.1
# How often `make hostile` kills runs, on this machine itself and in containers, and how many malformed inputs
# of each kind it tries.
KILLS ?= 150
EXAMPLES ?= 500
# Further flags for `harness run`, for example ARGS="--local --set workload.tables=4".
ARGS ?=
# C++ that the host compiles, files not yet added to git included. Device code is left as it stands: see .clang-format.
CPP = $(or $(wildcard $(shell git ls-files --cached --others --exclude-standard '*.cpp' '*.h' ':!opt_designs')),\
  $(error This needs git and its checkout, which say what C++ there is))

.DEFAULT_GOAL := help
.PHONY: help setup wheel site demo build-all run run-all report doctor test hostile test-gpu check-reference check-sent results reference-page lint format clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: DESIGN=$(DESIGN) TOOLCHAIN=$(TOOLCHAIN) ARGS=\"$(ARGS)\" (further flags of harness run)"

# The program alone: what every target but the tests needs.
$(VENV)/.installed: pyproject.toml
	@echo "Installing into $(VENV) (a minute or two, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable .
	@touch $@

# What the tests need besides; PyTorch is the largest part.
$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV) (some minutes, once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@# It asks for fbgemm-gpu, in whose place the tests have the build for the CPU.
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'torchrec==1.8.0'
	@# The tests start hundreds of processes. What was installed without its byte code each of them would compile,
	@# where PYTHONDONTWRITEBYTECODE is set. Some packages hold templates that are no Python and stay as they are.
	@$(BIN)/python -m compileall -qq -j 2 $(VENV)/lib || true
	@touch $@

setup: $(VENV)/.installed-dev ## Install the program and what its tests need into .venv

wheel: $(VENV)/.installed-dev ## Build the wheel of embedding-kernels into dist/ (20 minutes and more, the first time)
	$(BIN)/python -m kernel_wheel

$(VENV)/.installed-docs: $(VENV)/.installed
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

site: $(VENV)/.installed-docs ## Build the documentation as a site into dist/site/, our runs' page in it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

demo: $(VENV)/.installed ## Without GPU or Docker: compile every design, render the reference comparison
	$(HARNESS) compile --arch sm_80 --arch sm_90
	$(HARNESS) report $(foreach run,kernels peers paper modern,$(wildcard results/reference/*/$(run))) \
	  --output results/reference-report.html

build-all: $(VENV)/.installed ## Build one Docker image per design and toolchain
	$(HARNESS) build

run: $(VENV)/.installed ## Measure DESIGN beside baseline and PyTorch in containers; writes report.html
	$(HARNESS) run --design $(DESIGN) --toolchain $(TOOLCHAIN) $(ARGS)

run-all: $(VENV)/.installed ## Measure the paper's matrix (experiments/paper.toml)
	$(HARNESS) run paper $(ARGS)

report: $(VENV)/.installed ## Render the newest run's report again
	$(HARNESS) report

doctor: $(VENV)/.installed ## Check what this machine can do and how to mend what it cannot
	$(HARNESS) doctor

lint: $(VENV)/.installed-dev ## ruff, strict mypy, who may import whom, clang-format, cpplint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	$(BIN)/cpplint --quiet $(CPP)

format: $(VENV)/.installed-dev ## Mend what ruff and clang-format can mend by themselves
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CPP)

# The tests start hundreds of processes, and each would compile the sources anew where this is set.
test: export PYTHONDONTWRITEBYTECODE :=
test: lint ## All tests that this machine can run; names those it could not, and why
	$(BIN)/pytest -n 3 --dist loadgroup

hostile: $(VENV)/.installed-dev ## The long form of the tests with hostile inputs and kills (an hour and more)
	HARNESS_HOSTILE_KILLS=$(KILLS) HARNESS_HOSTILE_EXAMPLES=$(EXAMPLES) $(BIN)/pytest -n 0 -s tests/hostile tests/docker/test_kills.py

test-gpu: $(VENV)/.installed-dev ## The tests that need a GPU, and a record of them; fails where there is none
	$(BIN)/python tests/gpu/precompile.py
	$(BIN)/python -m kernel_wheel --in-place --here
	HARNESS_REQUIRE=gpu $(BIN)/pytest tests/gpu -n auto --maxprocesses 8 --dist loadgroup --no-loadscope-reorder --gpu-record results/reference

check-reference: $(VENV)/.installed-dev ## Refuse measurements, self-tests and GPU tests that are of older sources
	$(BIN)/python -m tests.check_reference

check-sent: $(VENV)/.installed-dev ## Refuse runs of others under results/sent that cannot be believed
	$(BIN)/python -m tests.check_sent

results: $(VENV)/.installed-dev ## Write the figures of README and docs anew, from results/reference
	$(BIN)/python -m tests.written_results

reference-page: $(VENV)/.installed-dev ## Render the page of the runs that ship, and its picture in README
	$(BIN)/python -m tests.reference_page

clean: ## Remove the virtual environment and caches; results stay
	rm -rf $(VENV) dist embedding_kernels/lib .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
