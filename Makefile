# make demo   a facility on this machine, the quickstart on it, and what it measured
# make test   every test, after `make check`; the browser's need Chromium
# make bench  this client beside what users would pick instead, on one server
# make lab    JupyterLab on the quickstart, with a facility running
# make check  ruff, mypy, tsc and eslint
# make labextension   what JupyterLab loads and the notebook widget, by npm (Node 20)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
PIP := -m pip --disable-pip-version-check -q
NPM := npm --silent
LABEXTENSION := eaf_inference/labextension/package.json

.PHONY: demo test test-beside check bench lab labextension train clean

demo: $(VENV)/demo
	@$(BIN)/eaf-inference demo --output build/demo

lab: $(VENV)/demo labextension
	@$(BIN)/eaf-inference up & facility=$$!; trap 'kill $$facility' EXIT INT TERM; \
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/quickstart.ipynb

# Two runs at once, as both wait more than they compute; the second one's output comes at the end.
BESIDE := $(addprefix tests/integration/test_,bench.py study.py jupyterhub.py own_usage.py usage.py)

test: check labextension $(OLDEST)/test
	@mkdir -p build
	@$(MAKE) test-beside > build/test-beside.log 2>&1 & beside=$$!; trap 'kill $$beside 2> /dev/null' EXIT; \
	$(BIN)/python -m pytest $(addprefix --ignore=,$(BESIDE)); main=$$?; \
	wait $$beside; others=$$?; cat build/test-beside.log; exit $$((main || others))

test-beside:
	$(NPM) test
	$(OLDEST)/bin/python -m pytest tests/unit -q
	$(BIN)/python -m pytest tests/server
	$(BIN)/python -m pytest tests/ui
	$(BIN)/python -m pytest $(BESIDE)

check: $(VENV)/test node_modules/.package-lock.json
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(NPM) run check

bench: $(VENV)/bench
	@$(BIN)/eaf-inference bench --output build/bench

train: $(VENV)/train
	$(BIN)/python notebooks/train_particlenet.py all

# An editable install copies shared data or leaves them out, by the version of hatchling: links stand in for them.
labextension: $(LABEXTENSION)
	@rm -rf $(VENV)/share/jupyter/labextensions/eaf-inference
	@mkdir -p $(VENV)/share/jupyter/labextensions $(VENV)/etc/jupyter/jupyter_server_config.d
	@ln -sfn $(CURDIR)/eaf_inference/labextension $(VENV)/share/jupyter/labextensions/eaf-inference
	@ln -sf $(CURDIR)/jupyter-config/server-config/eaf_inference.json $(VENV)/etc/jupyter/jupyter_server_config.d/

# jupyter-builder comes with JupyterLab.
$(LABEXTENSION): node_modules/.package-lock.json tsconfig.json $(shell find labextension/src labextension/style labextension/schema -type f)
	@test -x $(BIN)/jupyter-builder || $(MAKE) $(VENV)/demo
	@echo "building the labextension"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(NPM) run build
	@touch $@

node_modules/.package-lock.json: package.json package-lock.json
	@command -v npm > /dev/null || { echo "The labextension needs Node 20 or newer with npm; none was found."; exit 1; }
	@echo "installing npm's packages"
	@$(NPM) ci --no-audit --no-fund
	@touch $@

# One environment; the extras that a target needs are installed when it first does.
$(VENV)/%: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
		"eaf-inference needs Python 3.10 or newer; this is %s. Name one: make PYTHON=python3.12" % sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing eaf-inference[$*] into $(VENV)"
	@rm -rf $(VENV)/share/jupyter/labextensions/eaf-inference # not through the link that `labextension` makes
	@SKIP_JUPYTER_BUILDER=1 $(BIN)/python $(PIP) install -e '.[$*]'
	@touch $@

# The oldest versions that pyproject.toml allows.
$(OLDEST)/test: tests/oldest-requirements.txt
	@echo "installing the oldest supported versions into $(OLDEST)"
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python $(PIP) install --require-hashes -r tests/oldest-requirements.txt
	@SKIP_JUPYTER_BUILDER=1 $(OLDEST)/bin/python $(PIP) install --no-deps -e .
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build node_modules labextension/lib eaf_inference/labextension eaf_inference/static
