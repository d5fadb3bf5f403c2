# make demo: the main job on SQLite, or with STORE=postgresql on a PostgreSQL server of its own.
# make test: everything that must hold. Both install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIR ?= .demo
STORE ?= sqlite
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check requirements lock browser clean

demo: $(VENV)/run $(if $(filter postgresql,$(STORE)),$(VENV)/server)
	$(BIN)/renkei demo --dir $(DIR) --store $(STORE)

test: check browser
	RENKEI_REQUIREMENTS=.requirements.json $(BIN)/pytest -n 2 --dist worksteal

check: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Which R-numbers have a passing test, by group, and which have none.
requirements: $(VENV)/test browser
	RENKEI_REQUIREMENTS=.requirements.json $(BIN)/pytest -q -n 2 --dist worksteal
	$(BIN)/python -m tests.requirements .requirements.json

$(VENV)/run: requirements.txt requirements-build.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements-build.txt -r requirements.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/server: $(VENV)/run requirements-server.txt
	$(PIP) --require-hashes -r requirements-server.txt
	touch $@

# PostgreSQL 15 lies beside the newest one: two versions of one program cannot be installed in one place.
$(VENV)/test: $(VENV)/run requirements-test.txt requirements-postgresql15.txt
	$(PIP) --require-hashes -r requirements-test.txt
	$(PIP) --require-hashes --no-deps --upgrade --target $(VENV)/postgresql15 -r requirements-postgresql15.txt
	touch $@

# The portal is tested in a real browser; Debian's packages bring one, with a Japanese font.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null && fc-list :lang=ja | grep -q . \
	|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends \
	     chromium chromium-driver fontconfig fonts-ipaexfont-gothic >/dev/null; } \
	|| echo "no browser could be installed: the browser test will say so"

# Pin every dependency with its hashes anew.
lock: $(VENV)/run
	$(PIP) pip-tools
	for part in build run server test postgresql15; do $(BIN)/python -m piptools compile --quiet --allow-unsafe --strip-extras \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host $$(case $$part in \
	  build) echo "--output-file requirements-build.txt requirements-build.in";; \
	  run) echo "--output-file requirements.txt pyproject.toml";; \
	  server) echo "--extra server --constraint requirements.txt --output-file requirements-server.txt pyproject.toml";; \
	  postgresql15) echo "--output-file requirements-postgresql15.txt requirements-postgresql15.in";; \
	  test) echo "--extra test --constraint requirements.txt --output-file requirements-test.txt pyproject.toml";; \
	  esac) || exit 1; done

clean:
	rm -rf $(VENV) .demo .rebuilt .mypy_cache .pytest_cache .ruff_cache .hypothesis .requirements.json
