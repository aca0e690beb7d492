# Each target makes and reuses .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEER ?= ours
SESSIONS ?= 200000
SEED ?= 0

.PHONY: setup demo test soak lint clean system

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

# tshark, tcpdump and iproute2 (tests' independent witnesses) come from the distribution; without them those tests skip.
system:
	@sh tools/system-packages.sh

demo: $(VENV)/.core
	$(BIN)/python -m demo --peer $(PEER)

# First what shows the branches of wire/ and tcp/, counted; then all else that does not measure time
# (coverage slows what it watches); then what does, by itself.
test: setup system
	$(BIN)/python -m pytest -q -n 2 -m counted --cov=mptcp.wire --cov=mptcp.tcp --cov-report=
	$(BIN)/python -m pytest -q -n 2 -m "not counted and not realtime"
	$(BIN)/python -m pytest -q -m realtime
	$(BIN)/coverage report --include='mptcp/wire/*' --fail-under=100
	$(BIN)/coverage report --include='mptcp/tcp/*' --fail-under=95

# Random sessions through a hostile network, each checked against a model (see soak/).
soak: setup
	$(BIN)/python -m soak --sessions $(SESSIONS) --seed $(SEED)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests demo examples soak

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-out bench-out
