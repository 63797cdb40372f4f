"""What some tests cannot do without: with CI it has to be there, elsewhere they are skipped."""

import importlib
import os

import pytest


def lacking(what: str):
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what, allow_module_level=True)


def needed(name: str):
    """A module of the extra `dev`."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: a library of the system that it needs
        lacking(f"{name} is missing ({error}); pip install -e '.[dev]'")
