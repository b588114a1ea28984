# Every target but help, image and clean first makes .venv if it is missing or out of date.

PYTHON ?= python3
EXTRAS ?= offline,dev
# Hydra overrides for serve, prepare, train, sweep and evaluate, such as "experiment=finetune seed=2"; options of release.
ARGS ?=
# Name of a file in conf/sweep/.
SWEEP ?= joblib

VENV := .venv
BIN := $(VENV)/bin
comma := ,
# One stamp for each choice of extras, so that "make install" with other extras installs them.
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
NODEPS := src/talkinghead/requirements-nodeps.txt
ifneq ($(findstring offline,$(EXTRAS)),)
NODEPS += src/talkinghead/requirements-nodeps-offline.txt
endif
# Coverage makes the tests 50 % slower before Python 3.12.
COVER := --cov --cov-report=term:skip-covered --cov-fail-under=85
QUICK := not slow and not gpu and not network and not browser and not corpus

# User values reach the shell as environment variables, not as text of a recipe, so that spaces, quotes, `$` and `;` are
# plain characters. `value` prevents their expansion by make.
export TALKINGHEAD_FACE := $(value FACE)
export TALKINGHEAD_AUDIO := $(value AUDIO)
export TALKINGHEAD_TEXT := $(value TEXT)
export TALKINGHEAD_OUTPUT := $(value OUTPUT)
unexport FACE AUDIO TEXT OUTPUT
# The installation is not compiled: without bytecode files, each process would compile torch again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install infer serve prepare train sweep evaluate release test test-all lint typecheck format image docs clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

install: $(STAMP)  ## make .venv with the versions pinned in constraints.txt (EXTRAS=offline,dev)

$(STAMP): pyproject.toml constraints.txt $(NODEPS) scripts/make_venv.sh
	@scripts/make_venv.sh "$(PYTHON)" $(VENV)
	@echo "installing into $(VENV): some minutes and 9 GB the first time"
	@rm -f $@
	@# Modules are compiled when they are first imported: compiling all of them takes two minutes.
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[$(EXTRAS)]"
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --require-hashes $(addprefix -r ,$(NODEPS))
	@touch $@

infer: $(STAMP)  ## make a talking video: FACE=photo.jpg AUDIO=speech.wav (or TEXT="...") OUTPUT=talking.mp4; without arguments a demonstration
	@scripts/infer.sh $(BIN)/python

serve: $(STAMP)  ## serve a live face at http://localhost:8000: ARGS="face=photo.jpg"
	$(BIN)/talkinghead serve $(ARGS)

prepare: $(STAMP)  ## make a corpus from raw videos: ARGS="input=videos output=corpora/mine"
	$(BIN)/talkinghead prepare $(ARGS)

train: $(STAMP)  ## train a model: ARGS="experiment=smoke"
	$(BIN)/talkinghead train $(ARGS)

sweep: $(STAMP)  ## run a training for each value, two at a time: ARGS="experiment=smoke seed=1,2" (SWEEP=optuna)
	$(BIN)/talkinghead train -m sweep=$(SWEEP) $(ARGS)

evaluate: $(STAMP)  ## score a checkpoint: ARGS="checkpoint=last.ckpt corpus=corpora/mine output=scores"
	$(BIN)/talkinghead evaluate $(ARGS)

release: $(STAMP)  ## make the released weights from two corpora in 8 hours: ARGS="--grid grid --addresses addresses --voices voices --output release"
	$(BIN)/python scripts/make_release.py $(ARGS)

test: $(STAMP)  ## run the quick tests; COVERAGE=1 requires a coverage of 85 %
	@# Three processes for two cores, because some tests wait for frames in real time.
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --timeout 300 -m "$(QUICK)" $(if $(COVERAGE),$(COVER))

test-all: $(STAMP)  ## run every test with coverage, including the slow ones and, if available, those for a GPU, the network and a corpus
	$(BIN)/python -m pytest $(COVER)

lint: $(STAMP)  ## run ruff, check the import layers, and lint Dockerfiles, workflows and shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Dockerfile deploy/Dockerfile.gpu
	$(BIN)/zizmor --offline --quiet .github/workflows
	$(BIN)/shellcheck scripts/*.sh .ci/run

typecheck: $(STAMP)  ## check the types with mypy
	$(BIN)/mypy

format: $(STAMP)  ## format the code and apply automatic fixes
	$(BIN)/ruff check --fix-only --exit-zero .
	$(BIN)/ruff format .

image:  ## build the container image with docker or podman; GPU=1 for the image with CUDA
	@scripts/build_image.sh $(if $(GPU),gpu)

docs: $(STAMP)  ## build the documentation site in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## remove .venv, caches and build products; outputs/ and corpora stay
	rm -rf $(VENV) build dist site .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests scripts examples -name __pycache__ -type d -prune -exec rm -rf {} +
