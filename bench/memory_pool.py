"""What it saves that TensorFlow keeps the memory of tensors in a pool, as `import kerasdet` has it do.

    python bench/memory_pool.py [centernet] [--size 320] [--batch 16]

Two processes take turns at a training step, one with the pool and one without.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from common import print_machine, table
from targets import DETECTORS, draw_batch, network, step

from kerasdet.deploy.timing import interleave, peak_bytes, spread

POOL = "TF_CPU_ALLOCATOR_USE_BFC"


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("detector", nargs="?", default="centernet", choices=DETECTORS)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=320, help="side of the network's square")
    parser.add_argument("--stride", type=int, default=8, help="of csp and centernet")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--boxes", type=int, default=24, help="rows the photos are padded to")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        return serve(args)

    given = sys.argv[1:] if argv is None else argv
    processes = {pool: start(given, pool) for pool in ("false", "true")}
    try:
        times = interleave(
            {pool: lambda process=process: turn(process) for pool, process in processes.items()},
            args.rounds, settle=1,
        )
        peaks = {pool: turn(process) for pool, process in processes.items()}
    finally:
        for process in processes.values():
            process.communicate()
    print_machine()
    print(
        f"{args.detector} on {args.backbone}, {args.size} px, a training step of {args.batch} photos; "
        "median (quartiles)"
    )
    without = times["false"]
    rows = [
        (
            name, spread(times[pool] * 1000, ".0f"), spread(times[pool] / without, ".2f"),
            f"{peaks[pool] / 1e9:.1f} GB",
        )
        for name, pool in (("without", "false"), ("with a pool", "true"))
    ]
    table(("memory", "step, ms", "time / without", "at most"), rows)
    return 0


def start(arguments, pool: str) -> subprocess.Popen:
    """A process that waits to be asked for training steps."""
    return subprocess.Popen(
        [sys.executable, Path(__file__), *map(str, arguments), "--serve"], env=os.environ | {POOL: pool},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )


def turn(process: subprocess.Popen) -> int:
    """One training step of a process; the most bytes that it has held so far."""
    process.stdin.write("\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError("a training process ended; its error stands above")
    return int(answer)


def serve(args) -> int:
    """A training step for every line that comes in."""
    one_step = step(network(args, args.detector, backbone=args.backbone), draw_batch(args))
    for _ in sys.stdin:
        one_step()
        print(peak_bytes(), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
