"""Python in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys


def run_python(program: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Runs a program that imports the very packages that this process does.

    The folder that the command was given in is none of those, unless it is one for this process too: among a
    stranger's files there may be a numpy.py.

    Args:
        program: its source.
        arguments: `sys.argv[1:]` of it.
        options: of `subprocess.run`.
    """
    found = os.pathsep.join(os.path.abspath(place) for place in sys.path)
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments], env=os.environ | {"PYTHONPATH": found}, **options
    )
