# Each target sets up what it needs (.venv, system libraries) and then runs one real command.
# `make` alone lists the targets.

SCALE ?= mini
PYTHON ?= $(shell for v in python3.11 python3.12 python3.13 python3; do \
	$$v -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$v && break; done)
VENV := .venv
# Commands of DVC stages find the environment's `python` first.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONUNBUFFERED := 1
# Images of containers like to set it; every process would then compile torch again, which takes ten seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help repro test bench serve tables doctor setup scales
help:
	@echo "make repro    run the pipeline to reports/out/index.html (SCALE=mini, gpu or paper)"
	@echo "make test     run the tests"
	@echo "make bench    measure what is claimed of speed and memory"
	@echo "make serve    start the Prefect UI with one button per flow"
	@echo "make tables   run what the other tables need as well, and render the report again"
	@echo "make doctor   say what is present, what is stood in for, and where to put real data"

repro: setup
	@python -m flows.reproduce --scale $(SCALE)

test: setup
	@python -m pytest $(ARGS)

# One after the other, and shown.
bench: setup
	@python -m pytest --numprocesses=0 --capture=no tests/benchmarks $(ARGS)

serve: setup
	@python -m flows.serve

tables: setup
	@python -m flows.reproduce --scale $(SCALE) --tables

doctor: setup
	@python -m flows.doctor --scale $(SCALE)

# For those who change the graph: each scale has its own copy of it.
scales:
	@for scale in scales/*; do cp dvc.yaml $$scale/dvc.yaml && cp tables/dvc.yaml $$scale/tables/dvc.yaml; done

setup:
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh ./setup.sh
