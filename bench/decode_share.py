"""How much of a `.tflite`'s time decoding and suppression take.

    python bench/decode_share.py MODEL [--calibration DATA]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from common import load_detector, print_machine, read_photo, table

from kerasdet.deploy.timing import inference, interleave, spread


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a preset or a .keras file")
    parser.add_argument("--calibration", help="a set of photos; measures int8 too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--photo", help="what the network looks at; a drawn street if not given")
    args = parser.parse_args(argv)

    detector = load_detector(args.model)
    if detector.parts:
        # Detections leave them out, so raw heads of a detector with them would do more than it needs.
        from kerasdet.transfer import adapt

        detector = adapt(detector, detector.classes, parts=())
    photos = None
    if args.calibration:
        from kerasdet import data

        photos = data.load(args.calibration)
    precisions = ("float32", "int8") if photos is not None else ("float32",)
    picture = read_photo(args.photo)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tasks = {}
        for precision in precisions:
            for depth in ("raw", "detections"):
                path = Path(folder) / f"{precision}_{depth}.tflite"
                # Whether the file agrees with Keras is not the question here.
                detector.export(
                    path, precision=precision, outputs=depth, on_parity="warn",
                    calibration=photos if precision == "int8" else None,
                )
                tasks[precision, depth] = inference(str(path), args.threads, picture)
        times = interleave(tasks, args.rounds, settle=1)
    for precision in precisions:
        raw, whole = (times[precision, depth] for depth in ("raw", "detections"))
        rows.append(
            (
                precision,
                spread(raw * 1000, ".2f"),
                spread(whole * 1000, ".2f"),
                spread(1 - raw / whole, ".1%"),
            )
        )
    print_machine(args.threads)
    print(f"{args.model}, {detector.image_size} px; median (quartiles)")
    table(("precision", "raw, ms", "detections, ms", "decoding's share"), rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
