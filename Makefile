# One command for each thing a developer or an operator tries first. `make help` lists them.
# Every target makes its own virtual environment; nothing but Python >= 3.11 and make is needed.

PYTHON ?= $(shell sh deploy/find-python.sh)
# Tests mostly wait: four at once keep two cores busy.
WORKERS ?= 4
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check bench bench-full load soak format browser lock demo-check clean moved

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY)  ## Start a whole sample broker and watch deposits travel; Ctrl-C stops it
	@$(BIN)/brokerd demo

test: $(READY)  ## Run every test but the soak tests
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m "not soak" $(TESTS)
	@if $(BIN)/python -c "from tests.support.servers import system_postgres as found; exit(not found())"; then \
		echo "once more on the PostgreSQL of this system"; \
		$(BIN)/python -m pytest -q -n $(WORKERS) -m "postgres and not soak and not slow" \
			--postgres=system $(TESTS); fi

check: $(READY)  ## Check format, lint, types, imports, house rules and unit tests
	@echo "format";  $(BIN)/ruff format --quiet --check . || { echo "run 'make format'"; exit 1; }
	@echo "lint";    $(BIN)/ruff check --quiet --output-format concise .
	@echo "types";   $(BIN)/mypy --no-error-summary
	@echo "imports"; $(BIN)/lint-imports --no-logo
	@echo "house rules and unit tests"; $(BIN)/python -m pytest -q tests/house tests/unit

browser:  ## Install Chromium for the tests of pages from the system's packages, where it is absent
	@command -v chromium-headless-shell >/dev/null || { echo "installing Chromium" && apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
			chromium-headless-shell >/dev/null; }

format: $(READY)  ## Format the code and apply the safe fixes of the linter
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format --quiet .

bench: $(READY)  ## Measure against the targets; BENCH="journal" runs some
	@$(BIN)/python -m loadtests.bench $(BENCH)

bench-full: $(READY)  ## Measure at full size; takes much longer
	@$(BIN)/python -m loadtests.bench --full $(BENCH)

load: $(READY)  ## Play a calling system at constant throughput for a minute
	@$(BIN)/python -m loadtests.load

soak: $(READY)  ## Run the tests that take minutes
	@$(BIN)/python -m pytest -q -m soak --timeout 3600

demo-check: $(READY)  ## Run the demo for 20 seconds without a screen; fail unless its books agree
	@mkdir -p state
	@$(BIN)/brokerd demo --headless --seconds 20 --fresh --summary state/ci-summary.json; \
		code=$$?; rm -f state/ci-summary.json; exit $$code

lock: $(READY)  ## Resolve the dependencies again into requirements.lock (needs uv on the PATH)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	@env -u UV_INDEX_URL -u UV_DEFAULT_INDEX uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-header --group dev --extra embedded pyproject.toml -o requirements.lock

clean:  ## Remove the virtual environment and caches; state/ is yours and stays
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The stamp holds the folder it was made for: a checkout that was moved or copied is set up again.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
$(READY): moved
endif
$(READY): requirements.lock pyproject.toml
	@python="$(PYTHON)"; [ -n "$$python" ] || exit 1; sh deploy/make-venv.sh "$$python"
	@printf '%s\n' "$(CURDIR)" > $@
