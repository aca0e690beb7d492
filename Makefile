# Each target makes and reuses .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILED := build/compiled/.ready
PEER ?= ours
SESSIONS ?= 200000
MINUTES ?= 3
SEED ?= 0
# Each of the many processes of a test run would compile the tests again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup compiled demo test test-both soak fuzz lint clean system

setup: $(VENV)/.ready

# What runs the stack, the daemon and the demonstration.
$(VENV)/.core: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=python3.11"; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: apt-get install python3-venv python3-dev gcc make"; exit 2; }
	$(BIN)/pip install -q --disable-pip-version-check -e .
	@touch $@

# What tests, checks and measures it.
$(VENV)/.ready: $(VENV)/.core
	$(BIN)/pip install -q --disable-pip-version-check -e '.[bench,test,dev]'
	@touch $@

# The protocol core through mypyc: what runs uses it until a source changes (see mptcp/compiled.py).
compiled: $(COMPILED)

$(COMPILED): setup.py $(wildcard mptcp/*.py mptcp/schedulers/*.py mptcp/tcp/*.py mptcp/wire/*.py) | $(VENV)/.ready
	MPTCP_COMPILE=1 $(BIN)/python setup.py -q build_ext --build-lib build/compiled
	@touch $@

# tshark, tcpdump and iproute2 (tests' independent witnesses) come from the distribution; without them those tests skip.
system:
	@sh tools/system-packages.sh

demo: $(VENV)/.core
	$(BIN)/python -m demo --peer $(PEER)

# First, from the sources, what shows the branches of wire/ and tcp/ (counted: coverage slows what it
# watches) and what looks into the core; then, compiled, all else that does not measure time (what
# has namespaces waits as well as computes: more workers); then, by itself, what does.
test: setup compiled system
	MPTCP_COMPILED=0 $(BIN)/python -m pytest -q -n 2 -m "counted or interpreted" --cov=mptcp.wire --cov=mptcp.tcp --cov-report=
	MPTCP_COMPILED=1 $(BIN)/python -m pytest -q -n 2 -m "not (counted or interpreted or realtime or netns)"
	MPTCP_COMPILED=1 $(BIN)/python -m pytest -q -n 3 -m "netns and not (counted or interpreted or realtime)"
	MPTCP_COMPILED=1 $(BIN)/python -m pytest -q -m realtime
	$(BIN)/coverage report --include='mptcp/wire/*' --fail-under=100
	$(BIN)/coverage report --include='mptcp/tcp/*' --fail-under=95

# All of it from the sources, and all that can be with the compiled core.
test-both: setup compiled system
	MPTCP_COMPILED=0 $(BIN)/python -m pytest -q -n 2 -m "not realtime"
	MPTCP_COMPILED=1 $(BIN)/python -m pytest -q -n 2 -m "not realtime"

# Random sessions through a hostile network, each checked against a model (see soak/).
soak: setup compiled
	$(BIN)/python -m soak --sessions $(SESSIONS) --seed $(SEED)

# Coverage-guided fuzzing of the parsers and of a stack in each state (docs/fuzzing.md).
$(VENV)/.fuzz: $(VENV)/.ready
	$(BIN)/pip install -q --disable-pip-version-check -e '.[fuzz]'
	@touch $@

fuzz: $(VENV)/.fuzz
	$(BIN)/python -m fuzz --minutes $(MINUTES)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests demo examples soak fuzz

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-out bench-out
