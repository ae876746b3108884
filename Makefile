# The project's commands; `make help` lists them.
PYTHON ?= python3.11
PROFILE ?= cpu
BIN := .venv/bin

# Where byte code is not kept, every one of the dozen processes of a run compiles its imports again: 5 s instead of 2 s for mlflow alone.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup run table stack drill gate doctor test test-slow lint lock check bench-core bench-data bench-train bench-eval backbone ui clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv from the committed lock (PROFILE=cpu|gpu); does nothing when that is done
	@$(PYTHON) requirements/install.py $(PROFILE)

run: setup ## Run what is not up to date, from images to a registered inspector (EXPERIMENT=real DATA=<folder> for your own images)
	@$(BIN)/python -m flows.release $(if $(EXPERIMENT),--experiment "$(EXPERIMENT)") $(if $(DATA),--data "$(DATA)")

table: setup ## Run or resume a table of the paper and print ours beside it (T=3; SEEDS=0,1,2 PROFILE=<experiment>)
	@$(BIN)/python -m flows.table "$(T)" --seeds "$(or $(SEEDS),0,1,2)" $(if $(filter-out cpu,$(PROFILE)),--profile "$(PROFILE)")

stack: setup ## Show a release, a promotion and a rollback on PostgreSQL, MLflow, Prefect and an S3 server of this machine
	@$(BIN)/python -m infra.stack run $(if $(EXPERIMENT),--experiment "$(EXPERIMENT)")

drill: setup ## Disturb releases on purpose, and see that they recover (docs/drills.md)
	@$(BIN)/python -m infra.drills

gate: setup ## Decide whether a change may be merged: beside another commit (BASE=main), or LIVE=models:/iad-r1@production (EXPERIMENT=, LOCKED=1)
	@$(BIN)/python -m tasks._gate $(if $(LIVE),--live "$(LIVE)",--base "$(or $(BASE),main)") $(if $(EXPERIMENT),--experiment "$(EXPERIMENT)") \
		$(if $(LOCKED),--locked)

doctor: setup ## Say whether this machine can run the project, and what to do where it cannot
	@$(BIN)/iadr1 doctor

test: setup lint ## Check style and types, and run the tests (not those marked slow, gpu or network)
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --timeout 300 -m "not slow and not gpu and not network"

test-slow: setup ## Run the tests marked slow, one file after the other (about two hours)
	@$(BIN)/python -m pytest -q --timeout 3600 -m "slow and not gpu and not network"

lint: setup ## Check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy

lock: setup ## Rewrite the locks from pyproject.toml (UPGRADE=1 for newer versions)
	@UPGRADE=$(UPGRADE) requirements/lock.sh

check: ## Check that the parts of .venv import and start
	@$(BIN)/python requirements/check.py

bench-core: setup ## Measure how fast completions are scored and reports made
	@$(BIN)/python -m benchmarks.bench_core

bench-data: setup ## Measure listing, hashing and validating 10,000 and 100,000 samples
	@$(BIN)/python -m benchmarks.bench_data

bench-train: setup ## Measure both trainings beside TRL and the published recipe, and where the time of a step goes
	@$(BIN)/python -m benchmarks.bench_train

bench-eval: setup ## Measure images a second of an evaluation against vLLM alone and batches of four, and its memory
	@$(BIN)/python -m benchmarks.bench_eval

backbone: setup ## Teach the small backbone anew (about 90 minutes; its weights ship with the project)
	@$(BIN)/python -m tasks._backbone

ui: setup ## Show the runs in a browser
	@$(BIN)/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"

clean: ## Remove what the runs made, not the environment
	rm -rf data models .checkpoints .dvc/tmp .dvc/cache .stack/run
