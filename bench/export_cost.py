"""How long exporting a detector takes, and how much memory, each precision in a process of its own.

    python bench/export_cost.py MODEL [--calibration DATA] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from common import print_machine, table

from kerasdet.deploy.process import run_python
from kerasdet.deploy.timing import spread

# From a fresh process to the file on disk, checked against Keras: what `kerasdet export` does.
EXPORT = """
import json, sys, time
start = time.perf_counter()
import kerasdet
from kerasdet import zoo
from kerasdet.deploy.timing import peak_bytes
model, out, precision, data = sys.argv[1:]
detector = zoo.load_file(model)
calibration = kerasdet.data.load(data) if data else None
detector.export(out, precision=precision, calibration=calibration, on_parity="warn")
print(json.dumps([time.perf_counter() - start, peak_bytes() / 1e9]))
"""


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a preset or a .keras file")
    parser.add_argument("--calibration", help="photos with boxes; without them int8 is left out")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    precisions = ["float32", "float16", *(["int8"] if args.calibration else [])]
    costs = {precision: [] for precision in precisions}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            for precision in precisions:
                path = Path(folder) / f"{precision}_{number}.tflite"
                costs[precision].append(export(args.model, path, precision, args.calibration or ""))
    rows = []
    for precision, each in costs.items():
        seconds, gigabytes = np.array(each).T
        rows.append((precision, spread(seconds), spread(gigabytes)))
    print_machine()
    table(("precision", "s", "GB at most"), rows)
    return 0


def export(model: str, path: Path, precision: str, data: str) -> tuple[float, float]:
    """Seconds, and the most memory in GB."""
    done = run_python(EXPORT, model, str(path), precision, data, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exporting {model} as {precision} failed:\n{done.stderr.strip()[-2000:]}")
    return tuple(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    raise SystemExit(main())
