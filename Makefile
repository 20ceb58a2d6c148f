# make demo   a facility on this machine, the quickstart on it, and what it measured
# make test   every test but the extended ones, and `make check`; the browser's need Chromium
# make test-extended   HTCondor where it is installed, the study and the benchmarks, model stores and own models at length
# make test-fast   the tests that start no server and no browser, in a minute
# make bench  this client beside what users would pick instead, on one server
# make gpu-kit   what benchmarks/gpu/run needs on a machine with a GPU and no network, in .gpu-kit/
# make lab    JupyterLab on the quickstart, with a facility running
# make docs   the documentation site, in build/docs; warnings and broken internal links are errors
# make dist   wheel and sdist, and a smoke test of the wheel in an environment without Node
# make check  ruff, mypy, tsc, eslint, and the words and lengths that check_words.py knows
# make labextension   what JupyterLab loads and the notebook widget, by npm (Node 20)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
PIP := -m pip --disable-pip-version-check -q
# $(call install,ENVIRONMENT,WHAT): by uv, which resolves the tests' packages in seconds instead of minutes; by pip if only
# pip is configured for this machine's package index. SKIP_JUPYTER_BUILDER: an editable install needs no Node.
install = export SKIP_JUPYTER_BUILDER=1 UV_SYSTEM_CERTS=true; \
	{ $(1)/bin/python $(PIP) install uv && $(1)/bin/uv pip install -q --python $(1)/bin/python $(2); } \
	|| { echo "uv failed; installing by pip, which takes minutes"; $(1)/bin/python $(PIP) install $(2); }
NPM := npm --silent
LABEXTENSION := eaf_inference/labextension/package.json

.PHONY: demo test test-extended test-client test-ui test-server test-oldest test-labextension test-fast
.PHONY: check bench gpu-kit lab labextension train docs docs-links dist clean

demo: $(VENV)/demo
	@$(BIN)/eaf-inference demo --output build/demo

lab: $(VENV)/demo labextension
	@$(BIN)/eaf-inference up & facility=$$!; trap 'kill $$facility' EXIT INT TERM; \
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/quickstart.ipynb

# Several runs at once, as servers and browsers wait more than they compute; each one's output comes when it ends.
test: $(VENV)/test $(OLDEST)/test labextension
	@$(MAKE) --no-print-directory --jobs=3 --keep-going --output-sync=target \
		test-client test-ui test-server check test-oldest test-labextension

test-client: $(VENV)/test
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile -m "not extended"

test-extended: $(VENV)/test
	$(BIN)/python -m pytest -m extended

test-ui: $(VENV)/test $(VENV)/labextension
	$(BIN)/python -m pytest tests/ui

test-server: $(VENV)/test
	$(BIN)/python -m pytest tests/server

test-oldest: $(OLDEST)/test
	$(OLDEST)/bin/python -m pytest tests/unit -q -m "not slow"

test-labextension: node_modules/.package-lock.json
	$(NPM) test

test-fast: $(VENV)/test test-labextension
	$(BIN)/python -m pytest tests/unit -q -m "not slow"

check: $(VENV)/test node_modules/.package-lock.json
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/check_words.py
	$(BIN)/mypy
	$(NPM) run check

bench: $(VENV)/bench
	@$(BIN)/python -m benchmarks --output build/bench

gpu-kit: $(VENV)/bench
	@PYTHON=$(BIN)/python benchmarks/gpu/pack .gpu-kit

docs: $(VENV)/docs node_modules/.package-lock.json
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs
	@echo "built build/docs/index.html"

# Asks every external host, so it needs a network.
docs-links: $(VENV)/docs
	@$(BIN)/sphinx-build --quiet -b linkcheck docs build/docs-links

# The wheel is installed into an environment of its own, with nothing but that environment on PATH: no Node.
dist: $(VENV)/dist $(LABEXTENSION)
	@rm -rf dist build/wheel build/dist.log && mkdir -p build
	@echo "building wheel and sdist"
	@$(BIN)/python -m build --outdir dist . > build/dist.log 2>&1 || { cat build/dist.log; exit 1; }
	@du --apparent-size --bytes dist/*
	@$(BIN)/python recipe/check.py
	@$(BIN)/python -m venv build/wheel
	@echo "installing the wheel with [notebook] into build/wheel"
	@PATH=$(CURDIR)/build/wheel/bin build/wheel/bin/python $(PIP) install "$$(echo dist/*.whl)[notebook]"
	@cd build && PATH=$(CURDIR)/build/wheel/bin wheel/bin/python -I ../tests/smoke_wheel.py

train: $(VENV)/train
	$(BIN)/python notebooks/train_particlenet.py all
	$(BIN)/python notebooks/train_tracks.py

labextension: $(VENV)/labextension

# An editable install copies shared data or leaves them out, by the version of hatchling: links stand in for them.
$(VENV)/labextension: $(LABEXTENSION)
	@rm -rf $(VENV)/share/jupyter/labextensions/eaf-inference
	@mkdir -p $(VENV)/share/jupyter/labextensions $(VENV)/etc/jupyter/jupyter_server_config.d
	@ln -sfn $(CURDIR)/eaf_inference/labextension $(VENV)/share/jupyter/labextensions/eaf-inference
	@ln -sf $(CURDIR)/jupyter-config/server-config/eaf_inference.json $(VENV)/etc/jupyter/jupyter_server_config.d/
	@touch $@

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
	@rm -rf $(VENV)/share/jupyter/labextensions/eaf-inference $(VENV)/labextension # not through the link
	@$(call install,$(VENV),-e '.[$*]')
	@touch $@

# The oldest versions that pyproject.toml allows.
$(OLDEST)/test: tests/oldest-requirements.txt
	@echo "installing the oldest supported versions into $(OLDEST)"
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(call install,$(OLDEST),--require-hashes -r tests/oldest-requirements.txt)
	@$(call install,$(OLDEST),--no-deps -e .)
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build node_modules labextension/lib eaf_inference/labextension eaf_inference/static
