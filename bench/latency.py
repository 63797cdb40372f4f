"""How fast `.tflite` files are against the first of them, measured in turns.

    python bench/latency.py PEER.tflite OURS.tflite ... [--threads 2] [--rounds 30]
"""

from __future__ import annotations

import argparse
import os

from common import inference, interleave, print_machine, read_photo, spread, table


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE.tflite", help="the first is the measure")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--photo", help="what they look at; a drawn street if not given")
    args = parser.parse_args(argv)

    picture = read_photo(args.photo)
    # By number, so that a file may be given twice to see how far the ratios can be trusted.
    tasks = {
        number: inference(path, args.threads, picture) for number, path in enumerate(args.files)
    }
    times = interleave(tasks, args.rounds, settle=1)
    print_machine(args.threads)
    rows = [
        (
            path,
            f"{os.path.getsize(path) / 1e6:.2f}",
            spread(times[number] * 1000, ".2f"),
            spread(times[number] / times[0], ".3f"),
        )
        for number, path in enumerate(args.files)
    ]
    table(("file", "MB", "ms, median (quartiles)", "time / first"), rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
