# make demo   find people on a photo, fine-tune, export, compare: pictures in out/
# make test   what CI runs; make test-full adds what is too slow for it
# Both set everything up in .venv/ first. Another Python: make test PYTHON=python3.12

PYTHON ?= python3
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-full lint setup clean

demo: setup
	$(BIN)/python -m kerasdet.tour

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow"

test-full: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: setup
	$(BIN)/ruff check .

setup: $(STAMP)

# Installed anew when pyproject.toml changed.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("kerasdet needs Python 3.11 or newer, and $(PYTHON) is %d.%d; name another: make ... PYTHON=python3.12" % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make $(VENV)/ (on Debian and Ubuntu: apt install python3-venv)" >&2; \
		rm -rf $(VENV); exit 1; }
	@echo "Installing into $(VENV)/; the first time takes some minutes (TensorFlow is large)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@# MediaPipe links against these two on Linux; tests that need them skip where they are missing.
	@if [ "$$(uname)" = Linux ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& ! { ldconfig -p | grep -q libGLESv2.so.2 && ldconfig -p | grep -q libEGL.so.1; }; then \
		{ apt-get update -qq && apt-get install -y -qq libgles2 libegl1; } >/dev/null 2>&1 \
		|| echo "libgles2 and libegl1 could not be installed: MediaPipe will not run here"; fi
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build dist out .pytest_cache .ruff_cache
