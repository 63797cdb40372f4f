"""Times that can be compared: in turns, with their spread, and the memory that a file takes.

Latencies of one machine change from minute to minute, by other work, heat and clock. So everything that is
compared takes turns in one run, A B A B, and what counts is the ratio of neighbouring turns.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import numpy as np

from kerasdet import cores
from kerasdet.deploy.process import run_python

# Flags of processors that multiply vectors of eight-bit numbers, x86 and ARM.
EIGHT_BIT_PRODUCTS = {"avx512_vnni", "avx_vnni", "asimddp"}

# Run in a process of its own, which imports nothing else that is large.
_PEAK = """
import json, sys
import numpy as np
from kerasdet.deploy.litert import Runner
from kerasdet.deploy.timing import peak_bytes
from ai_edge_litert.interpreter import Interpreter
before = peak_bytes()
runner = Runner(open(sys.argv[1], "rb").read(), int(sys.argv[2]))
for _ in range(3):
    runner(np.zeros(runner.input_shape[1:], runner.dtype))
print(json.dumps(peak_bytes() - before))
"""


def interleave(
    tasks: Mapping[Hashable, Callable[[], object]], rounds: int, settle: int = 0, progress: bool = False
) -> dict[Hashable, np.ndarray]:
    """Times tasks in turns: the first, the second, ..., and again, `rounds` times.

    Args:
        tasks: name -> what to time. Each runs once before the clock, to build and warm up.
        rounds: turns a task gets, 1 or more.
        settle: calls without a clock at the start of every turn, for tasks so short that they
            would otherwise measure the caches that the task before them left behind.
        progress: show a progress bar.

    Returns:
        name -> (rounds,) seconds, row for row from the same rounds.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; give 1 or more")
    for task in tasks.values():
        task()
    times = {name: np.empty(rounds) for name in tasks}
    turns = range(rounds)
    if progress:
        from rich.progress import track

        turns = track(turns, description="Timing")
    for turn in turns:
        for name, task in tasks.items():
            for _ in range(settle):
                task()
            start = time.perf_counter()
            task()
            times[name][turn] = time.perf_counter() - start
    return times


def spread(values: np.ndarray, form: str = ".3g") -> str:
    """'median (lower quartile to upper quartile)'."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def inference(path: str | os.PathLike, threads: int, picture: np.ndarray) -> Callable[[], list]:
    """A task that runs any `.tflite` with one image input once, the picture already resized."""
    import cv2

    from kerasdet.deploy.litert import Runner
    from kerasdet.deploy.metadata import read_metadata

    about = read_metadata(path)
    runner = Runner(Path(path).read_bytes(), threads)
    if len(runner.input_shape) != 4 or runner.input_shape[3] != 3:
        raise ValueError(f"{path}: takes {runner.input_shape}, not one RGB image (1, H, W, 3)")
    _, height, width, _ = runner.input_shape
    image = cv2.resize(picture, (width, height))
    if runner.dtype == np.float32 and "outputs" not in about:
        # Ours take 0..255 in float too; others want about -1..1.
        image = (image.astype(np.float32) - 127.5) / 127.5
    return lambda: runner(image)


def memory(path: str | os.PathLike, threads: int) -> float:
    """Bytes by which loading and running a `.tflite` raises the peak of a fresh process; nan on Windows,
    which does not tell it.

    Args:
        path: of the file.
        threads: CPU threads.

    Raises:
        RuntimeError: LiteRT cannot run it.
    """
    done = run_python(_PEAK, os.fspath(path), str(threads), capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(f"{path}: cannot be run in a process of its own: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_bytes() -> float:
    """The most memory that this process has held so far; nan where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would give the parent's peak if that is higher: Linux hands it on.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine() -> str:
    """Processor, cores that this process may use, and system."""
    return f"{processor()}, {platform.system()}"


def processor() -> str:
    """Processor, and cores that this process may use; says so if it has no products of eight-bit vectors."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        about = ""
    return f"{processor_name(about) or platform.processor() or platform.machine()}, {cores.usable()} cores"


def processor_name(about: str) -> str:
    """The name in Linux's /proc/cpuinfo, "" where there is none.

    Processors of one name come with and without instructions that multiply vectors of eight-bit numbers. With
    them an int8 file takes half of a float file's time, without them as much: so it is part of the name.
    """
    values = {}
    for line in about.splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip(), value.strip())
    name, flags = values.get("model name", ""), values.get("flags", values.get("Features", ""))
    without = name and flags and not EIGHT_BIT_PRODUCTS & set(flags.split())
    return f"{name} without eight-bit products" if without else name


def disturbance() -> str | None:
    """Says so if the machine has other work to do, which takes time from what is measured."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load <= cores.usable() / 2:
        return None
    return f"load {load:.1f} on {cores.usable()} cores: ratios may be off, times surely are"
