# `make` lists the targets. Each does its own set-up: a virtual environment in .venv with the versions of requirements.lock.
# PYTHON=/path/to/python3 names the Python to make it with; ARGS="..." is handed on to the tool that a target runs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV_VERSIONS := uv>=0.13,<0.14
export PYTHON

# Tests start a thousand Pythons. Where the machine forbids bytecode, as containers do, each would compile its modules anew:
# it is kept then, but in .venv, so that nothing comes to lie beside the sources.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/bytecode

# uv reads its own settings; where a machine has only pip's, they hold for uv too. It trusts whom the machine trusts: behind
# a company's TLS proxy its own list of authorities would not do.
UV_ENV := $(if $(wildcard /etc/ssl/certs/ca-certificates.crt),UV_SYSTEM_CERTS="$${UV_SYSTEM_CERTS:-true}") \
	$(if $(UV_DEFAULT_INDEX)$(UV_INDEX_URL),,$(if $(PIP_INDEX_URL),UV_DEFAULT_INDEX="$$PIP_INDEX_URL")) \
	$(if $(SSL_CERT_FILE),,$(if $(PIP_CERT),SSL_CERT_FILE="$$PIP_CERT"))
UV := $(UV_ENV) $(BIN)/uv

.PHONY: help
help:
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST) | while IFS=: read -r name words; do printf '  make %-12s%s\n' "$$name" "$$words"; done

.PHONY: demo
demo: $(READY) ## an origin, one appliance and a page that plays a film from it; SMOKE=1 lets a headless browser judge
	@exec $(BIN)/oca-admin demo $(if $(filter-out 0,$(SMOKE)),--smoke) $(ARGS)

.PHONY: test
test: $(READY) ## all tests but the long ones
	@exec $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-racking
test-racking: $(READY) ## Debian machines, made and booted here, set up by Ansible (needs root, debootstrap, systemd-container)
	@exec $(BIN)/pytest -m racking -n 2 --dist loadfile --timeout=900 tests/ansible $(ARGS)

.PHONY: check
check: $(READY) ## style, types, the direction of imports, and what Ansible's linter says
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@cd ansible && PATH="$(CURDIR)/$(BIN):$$PATH" ansible-lint --offline -q --nocolor --profile production

.PHONY: fix
fix: $(READY) ## mend what ruff can mend, and format
	@$(BIN)/ruff check --fix --exit-zero --quiet
	@$(BIN)/ruff format
	@$(BIN)/ruff check

.PHONY: bench
bench: $(READY) ## the appliance beside nginx on this machine (needs nginx and wrk)
	@exec $(BIN)/python -m tests.bench $(ARGS)

.PHONY: bench-store
bench-store: $(READY) ## what the store's policy misses, writes and remembers, beside those that are well known
	@exec $(BIN)/python -m tests.bench.store $(ARGS)

.PHONY: bench-steering
bench-steering: $(READY) ## what steering's decisions, prefixes, DNS and HTTP answers cost (needs wrk)
	@exec $(BIN)/python -m tests.bench.steering $(ARGS)

.PHONY: bench-fill
bench-fill: $(READY) ## what nightly fill is worth, what planning costs, and the agent beside curl (needs nginx, curl and root)
	@exec $(BIN)/python -m tests.bench.fill $(ARGS)

.PHONY: bench-publish
bench-publish: $(READY) ## what encryption and single files cost a publisher, beside a checksum
	@exec $(BIN)/python -m tests.bench.publish $(ARGS)

.PHONY: bench-crowd
bench-crowd: $(READY) ## 500 viewers of the demo's four appliances, and what they felt
	@exec $(BIN)/python -m tests.bench.crowd $(ARGS)

.PHONY: bench-console
bench-console: $(READY) ## the NOC's console with 2,000 appliances in a browser: first paint, stutter, cost (needs chromium)
	@exec $(BIN)/python -m tests.bench.console $(ARGS)

.PHONY: sim
sim: $(READY) ## a day of 20 million viewers over 20,000 appliances, beside two simpler ways to steer (15 minutes, plots in build/sim)
	@exec $(BIN)/python -m tests.bench.sim $(ARGS)

.PHONY: soak
soak: $(READY) ## the long tests: many rounds of kill -9, and the like
	@exec $(BIN)/pytest -m soak --timeout=3600 $(ARGS)

.PHONY: dist
dist: $(READY) ## what machines install, in dist/: the wheel, locks with hashes, and a wheel house for those without internet
	@$(UV_ENV) exec $(BIN)/python systemd/dist $(ARGS)

.PHONY: deb
deb: $(READY) ## Debian packages in dist/, for machines without pip: the programs of this version, and the units
	@exec systemd/debian/build

.PHONY: metrics
metrics: $(READY) ## write admin/dashboards/METRICS.md anew from what running processes show
	@exec $(BIN)/python -m tests.docs.metrics

.PHONY: dashboards
dashboards: $(READY) ## write admin/dashboards/*.json anew, for Grafana
	@exec $(BIN)/python -m admin.dashboards

.PHONY: lock
lock: $(BIN)/uv ## write requirements.lock anew from pyproject.toml; ARGS=--upgrade takes the newest versions
	@$(UV) pip compile --quiet --universal --no-annotate --no-header --generate-hashes --no-emit-index-url \
		--no-emit-find-links --python-version 3.11 --extra demo --extra encode --extra planner --group dev \
		pyproject.toml -o requirements.lock $(ARGS)

# sync removes what the lock does not name, but leaves pip and uv, which brought it here.
$(READY): pyproject.toml requirements.lock | $(BIN)/uv
	@echo "installing the packages of requirements.lock into $(VENV)"
	@$(UV) pip sync --quiet --python $(BIN)/python requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(BIN)/uv: | .ci/python
	@python=$$(.ci/python); echo "making $(VENV) with $$python"; "$$python" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(UV_VERSIONS)'
