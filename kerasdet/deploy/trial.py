"""A `.tflite` from a stranger is run once in a process of its own, before it is run in ours.

`verify` looks at how a graph hangs together. What an operator does with a wrong option, only running it
shows, and where LiteRT trusts the file, a wrong one takes its process down. It has to be that of the trial.
"""

from __future__ import annotations

import os
import subprocess
import sys

from kerasdet.deploy.process import run_python

# Of the trial: memory in bytes (where the system can limit it, which Linux does) and seconds.
MEMORY, SECONDS = 2**33, 60
_PROGRAM = "import sys; from kerasdet.deploy import trial; sys.exit(trial.main(sys.argv[1]))"


def run_once(path: str | os.PathLike) -> None:
    """Loads a file and runs it on one picture, in another process.

    Args:
        path: a `.tflite` file.

    Raises:
        ValueError: the process came to its end, could not be had, filled the memory or did not finish. What
            LiteRT itself finds wrong with the file is left to whoever loads it next.
    """
    if not sys.executable:  # Python inside another program
        return
    try:
        done = run_python(
            _PROGRAM, os.fspath(path), timeout=SECONDS, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"{path}: did not come to an end within {SECONDS} s on one picture; do not run it"
        ) from None
    if done.returncode == 1:  # Python's own, of an error that nobody caught
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:300]
        raise ValueError(f"{path}: could not be tried in a process of its own ({reason}); mend that first")
    if done.returncode:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise ValueError(
            f"{path}: LiteRT breaks down on it ({how}): it is damaged, or made to do that; do not run it, "
            "make or fetch the file again"
        )


def main(path: str) -> int:
    """The trial itself; 0 if the file runs, or is refused as it should be."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):  # Windows has none, macOS does not limit memory
        pass
    import numpy as np

    from kerasdet.deploy import verify
    from kerasdet.deploy.litert import Runner

    try:
        with open(path, "rb") as file:
            data = file.read()
        verify.check(data)
        runner = Runner(data, threads=1)
        runner(np.random.default_rng(0).integers(0, 256, runner.input_shape[1:], np.uint8))
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError, IndexError):
        pass  # whoever runs it says so
    return 0

