# make demo   a facility on this machine, the quickstart on it, and what it measured
# make test   every test, after `make check`
# make lab    JupyterLab on the quickstart, with a facility running
# make check  ruff and mypy

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
PIP := -m pip --disable-pip-version-check -q

.PHONY: demo test check lab train clean

demo: $(VENV)/demo
	@$(BIN)/eaf-inference demo --output build/demo

lab: $(VENV)/demo
	@$(BIN)/eaf-inference up & facility=$$!; trap 'kill $$facility' EXIT INT TERM; \
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/quickstart.ipynb

test: check $(OLDEST)/test
	$(OLDEST)/bin/python -m pytest tests/unit -q
	$(BIN)/python -m pytest

check: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

train: $(VENV)/train
	$(BIN)/python notebooks/train_particlenet.py all

# One environment; the extras that a target needs are installed when it first does.
$(VENV)/%: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
		"eaf-inference needs Python 3.10 or newer; this is %s. Name one: make PYTHON=python3.12" % sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing eaf-inference[$*] into $(VENV)"
	@$(BIN)/python $(PIP) install -e '.[$*]'
	@touch $@

# The oldest versions that pyproject.toml allows.
$(OLDEST)/test: tests/oldest-requirements.txt
	@echo "installing the oldest supported versions into $(OLDEST)"
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python $(PIP) install -r tests/oldest-requirements.txt
	@$(OLDEST)/bin/python $(PIP) install --no-deps -e .
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build
