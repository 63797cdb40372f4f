"""What the benchmarks share: a table, and what machine it was. `kerasdet.deploy.timing` takes the times."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from kerasdet.deploy.timing import disturbance, machine

LIBRARIES = (
    "numpy", "keras", "tensorflow", "tensorflow-cpu", "jax", "grain", "opencv-python-headless",
    "opencv-contrib-python", "ai-edge-litert", "ai-edge-quantizer",
)

# Asked for when a benchmark begins: what it does itself is work too.
DISTURBED = disturbance()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints columns, the first to the left and the others to the right."""
    lines = [tuple(map(str, line)) for line in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, (first, *rest) in enumerate(lines):
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join(cells))
        if number == 0:
            print("  ".join("-" * width for width in widths))


def print_machine(threads: int | None = None) -> None:
    """Prints processor, cores, threads and library versions; warns of a machine that was busy before."""
    used = "" if threads is None else f", {threads} threads used"
    print(f"machine: {machine()}{used}")
    versions = [f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    print(f"versions: {', '.join(versions)}")
    if "keras" in sys.modules:
        keras = sys.modules["keras"]
        devices = ", ".join(keras.distribution.list_devices())
        print(f"Keras backend: {keras.backend.backend()} on {devices}")
    if DISTURBED:
        print(f"warning: {DISTURBED}")
    print()


# === What is measured ===


def read_photo(path: str | None) -> np.ndarray:
    """(H, W, 3) uint8 RGB: the photo at `path`, or a drawn street with people."""
    from kerasdet import photo
    from kerasdet.data.scenes import write_scenes

    if path is not None:
        return photo.read(path)
    with tempfile.TemporaryDirectory() as folder:
        # Of these, the one with the most people: suppression must have something to do.
        scenes = write_scenes(folder, 8, size=(640, 480))
        return photo.read(max(scenes, key=lambda sample: len(sample.boxes)).path)


def load_detector(model: str):
    """The `Detector` of a preset's name or a `.keras` file."""
    from kerasdet import zoo

    return zoo.load_file(model)
