# `make` shows what there is. Every target sets up what it needs first.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long attack faults faults-long faults-selftest bench test-kills test-erasures check defects up status down customer-token format schemas asyncapi lock clean

# Where it is set, every process that starts compiles all our sources anew.
unexport PYTHONDONTWRITEBYTECODE

PY := .venv/bin/python
# Three for two cores, since most tests wait much. What stays together is in conftest.py. A later -n in ARGS wins.
WORKERS := -n 3 --dist loadscope --no-loadscope-reorder
PACKAGES := shared/event-contracts shared/country-data shared/servicekit shared/lanes services/account services/order services/logistics-gateway services/privacy

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/ready ## the whole system from nothing: start, run the main job, show what happened, stop
	@$(PY) -m tests.demo

test: check ## all checks and all tests; ARGS='-k sealed' narrows the tests
	@FAULTS_SEED=$${FAULTS_SEED:-1} $(PY) -m pytest $(WORKERS) -m 'not long' $(ARGS) --faults-report

test-long: .venv/ready ## the tests that take long and show again, with more, what shorter ones show
	@EXAMPLES=$${EXAMPLES:-new} $(PY) -m pytest $(WORKERS) -m long $(ARGS)
	@EXAMPLES=$${EXAMPLES:-new} $(PY) -m pytest $(WORKERS) -m 'not long' tests/unit

faults: .venv/ready ## the tests of faults alone, with the report .local/faults.json and .html; FAULTS_SEED=… replays a run
	@SAGA_HITS=$${SAGA_HITS:-2} $(PY) -m pytest $(WORKERS) -m fault $(ARGS) --faults-report

attack: .venv/ready ## try what a stranger or a thief would try; prints attempt, expected, seen: .local/attack.md
	@$(PY) -m pytest $(WORKERS) -q -m attack $(ARGS) --attack-report

faults-long: .venv/ready ## the same, longer, then with seed after seed; ends by itself within 60 minutes
	@$(PY) -m tests.faults.long $(WORKERS) $(ARGS)

faults-selftest: .venv/ready ## break each invariant and each protection against an attack in a copy of the tree, and see that its test turns red; ARGS='inbox' narrows
	@$(PY) -m tests.faults.selftest $(ARGS)

bench: .venv/ready ## measure the product against its limits in one run: .local/bench.json and plots; ARGS='gateway' narrows, SUBJECTS=… grows
	@$(PY) -m tests.bench $(ARGS)

test-kills: .venv/ready ## kill each role, the broker and Postgres ten times under load; takes a while
	@KILLS=10 $(PY) -m pytest -s tests/acceptance/test_kills.py

test-erasures: .venv/ready ## erase 1,000 of 10,000 people, then try to open everything; takes a while
	@ERASED=1000 PEOPLE=10000 $(PY) -m pytest -s tests/acceptance/test_erasure.py

check: .venv/ready ## format, lint, types, import rules and our own rules
	@$(PY) -m deploy.check.all

defects: .venv/ready ## break each law in a copy of the tree: the test that the patch names must see it; ARGS='L4' narrows
	@$(PY) -m tests.defects.run $(ARGS)

up: .venv/ready ## start the system in the background, write .local/stack.env; WITH=module:NAME adds a third party's service
	@$(PY) -m deploy.local.cli up $(addprefix --with ,$(WITH))

status: .venv/ready ## roles, lag, outbox depth and versions of the running system
	@$(PY) -m deploy.local.cli status

down: .venv/ready ## stop the system; no process and no data stay
	@$(PY) -m deploy.local.cli down

customer-token: .venv/ready ## a token for one customer: make customer-token SUBJECT=<subject id>
	@$(PY) -m deploy.local.cli customer-token $(or $(SUBJECT),$(error Name the customer: make customer-token SUBJECT=<subject id>))

format: .venv/ready ## put the code in its format
	@.venv/bin/ruff check --quiet --select I --fix . && .venv/bin/ruff format --quiet .

schemas: .venv/ready ## write the contracts' JSON Schemas anew (refused when an unversioned change would break a reader; ARGS=--readers-first lets a sealed model become wider)
	@$(PY) -m deploy.check.schemas --write $(ARGS)

asyncapi: .venv/ready ## write docs/asyncapi/ anew from the running code
	@$(PY) -m deploy.check.asyncapi --write

setup: .venv/ready ## the virtual environment from requirements.lock; PYTHON=python3.12 chooses another Python

lock: .venv/ready ## resolve requirements.in anew into requirements.lock
	@$(PY) -m venv .local/lock && .local/lock/bin/pip install --quiet uv && .local/lock/bin/uv pip compile --quiet --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links -o requirements.lock requirements.in
	@rm -r .local/lock

clean: ## remove the virtual environment and all caches
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find shared services deploy tests -name __pycache__ -type d -prune -exec rm -r {} +

.venv/ready: requirements.lock deploy/setup.sh $(PACKAGES:=/pyproject.toml)
	@bash deploy/setup.sh
