"""Python in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys


def run_python(program: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Runs a program that imports the very packages that this process does.

    Args:
        program: its source.
        arguments: `sys.argv[1:]` of it.
        options: of `subprocess.run`.
    """
    found = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=os.environ | {"PYTHONPATH": found}, **options
    )
