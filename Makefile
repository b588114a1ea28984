# Every target but help and clean first makes .venv where it is missing or older than what it is made from.

PYTHON ?= python3
EXTRAS ?= offline,dev
# Hydra overrides for prepare, train, sweep and evaluate: make train ARGS="experiment=compact_grid seed=2"
ARGS ?=
# A file in conf/sweep/.
SWEEP ?= joblib

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NODEPS := src/talkinghead/requirements-nodeps.txt
ifneq ($(findstring offline,$(EXTRAS)),)
NODEPS += src/talkinghead/requirements-nodeps-offline.txt
endif
# Before Python 3.12 it makes the tests half as slow again.
COVER := --cov --cov-report=term:skip-covered --cov-fail-under=85
QUICK := not slow and not gpu and not network and not corpus

# The user's values reach the shell as environment variables, never as text of a recipe: spaces, quotes, `$` and `;` in
# them are only characters. `value` keeps make from expanding them.
export TALKINGHEAD_FACE := $(value FACE)
export TALKINGHEAD_AUDIO := $(value AUDIO)
export TALKINGHEAD_TEXT := $(value TEXT)
export TALKINGHEAD_OUTPUT := $(value OUTPUT)
unexport FACE AUDIO TEXT OUTPUT

.DEFAULT_GOAL := help
.PHONY: help install infer prepare train sweep evaluate test test-all lint typecheck format clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

install: $(STAMP)  ## make .venv with everything pinned in constraints.txt (EXTRAS=offline,dev)

$(STAMP): pyproject.toml constraints.txt $(NODEPS) scripts/make_venv.sh
	@scripts/make_venv.sh "$(PYTHON)" $(VENV)
	@echo "installing into $(VENV): some minutes and 8 GB the first time"
	@rm -f $@
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes $(addprefix -r ,$(NODEPS))
	@touch $@

infer: $(STAMP)  ## a talking video: FACE=photo.jpg AUDIO=speech.wav (or TEXT="...") OUTPUT=talking.mp4; nothing: a demonstration
	@scripts/infer.sh $(BIN)/python

prepare: $(STAMP)  ## raw videos to a corpus: ARGS="input=videos output=corpora/mine"
	$(BIN)/talkinghead prepare $(ARGS)

train: $(STAMP)  ## train: ARGS="experiment=smoke"
	$(BIN)/talkinghead train $(ARGS)

sweep: $(STAMP)  ## one training run for each value, two at a time: ARGS="experiment=smoke seed=1,2" (SWEEP=optuna)
	$(BIN)/talkinghead train -m sweep=$(SWEEP) $(ARGS)

evaluate: $(STAMP)  ## score a checkpoint: ARGS="checkpoint=last.ckpt corpus=corpora/mine output=scores"
	$(BIN)/talkinghead evaluate $(ARGS)

test: $(STAMP)  ## the tests that need nothing special; COVERAGE=1 asks for coverage of at least 85 %
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "$(QUICK)" $(if $(COVERAGE),$(COVER))

test-all: $(STAMP)  ## every test, with coverage: the slow ones, and those for a GPU, the network and a corpus where they are here
	$(BIN)/python -m pytest $(COVER)

lint: $(STAMP)  ## ruff, and the layers of the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

typecheck: $(STAMP)  ## check the types with mypy
	$(BIN)/mypy

format: $(STAMP)  ## format the code and mend what ruff can
	$(BIN)/ruff check --fix-only --exit-zero .
	$(BIN)/ruff format .

clean:  ## remove .venv, caches and build products; outputs/ and corpora stay
	rm -rf $(VENV) build dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
