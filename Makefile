# make train   sets up what is missing and trains LeNet-5 on the digits; make train ARGS="model=alexnet data=cifar10"
# make test    sets up what is missing and runs the tests;               make test ARGS="-k lenet5"
# make test-all  the long tests too (25 minutes on 2 cores); make audit  checks the installed packages
# make test-cluster  sweeps on a real SLURM of two nodes, installed and started on this machine (as root)
# make test-gpu  what only an NVIDIA GPU can show, in ten minutes; make bench-gpu  measures its speed
# make bench   measures the table of docs/speed.md, in under 10 minutes; make bench ARGS="start lenet5_epoch" a part of it
# make test-hydra-pre  the tests of the config on the newest pre-release of Hydra; they may fail
# make course  executes notebooks/*.py and writes the .ipynb that GitHub shows; make course ARGS=notebooks/2_lenet5.py
# make docs    builds the site of README.md, docs/, notebooks/ and results/ in build/docs, offline
# make check   the style and type checks;  make lock  regenerates requirements.lock

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: train test test-all test-cluster test-gpu bench-gpu test-hydra-pre bench course docs check audit lock clean

train: $(INSTALLED)
	$(BIN)/python train.py $(ARGS)

# One thread per worker: two workers with two threads each would compete for two cores. Neighbouring tests share
# fixtures, so each worker takes a stretch of them, and what is left of another's when its own is done.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not cluster and not site and not course" $(ARGS)

test-all: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not cluster and not site" $(ARGS)

# A real SLURM of two nodes on this machine; as root, on Debian or Ubuntu.
test-cluster: $(INSTALLED)
	$(BIN)/python tests/cluster/slurm_cluster.py install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cluster $(ARGS)

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -n4 -m gpu tests/gpu $(ARGS)

bench-gpu: $(INSTALLED)
	$(BIN)/python benchmarks gpu

bench: $(INSTALLED)
	$(BIN)/python benchmarks $(ARGS)

course: $(INSTALLED)
	$(BIN)/python tools/course.py $(ARGS)

# A warning, such as a link to a missing file, fails it.
docs: $(INSTALLED)
	$(BIN)/python -m sphinx --fail-on-warning --quiet --conf-dir docs --doctree-dir build/doctrees . build/docs

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

# The tests of the config on the newest pre-release of Hydra, in a folder of its own; they may fail.
test-hydra-pre: $(INSTALLED)
	rm -rf build/hydra-pre
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --pre --upgrade --target build/hydra-pre \
		"hydra-core>=1.4.0.dev0" "omegaconf>=2.4.0.dev0"
	PYTHONPATH=build/hydra-pre OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/config $(ARGS)

audit: $(INSTALLED)
	$(BIN)/python tools/audit.py

# runs pip only if the requested packages have changed
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set, for example, PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	@touch $@

lock: $(INSTALLED)
	$(BIN)/python tools/lock.py > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf .venv build src/*.egg-info .pytest_cache .ruff_cache .hypothesis
