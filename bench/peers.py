"""Our detectors beside a peer's `.tflite`: the same photos, the same metrics, latency in turns.

    python bench/peers.py DATA --model OURS.tflite ... --peer SSD.tflite
    python bench/peers.py voc12 --split val --classes cat cow dog horse sheep person --model ... --peer ...
"""

from __future__ import annotations

import argparse
import math
import os

from common import inference, interleave, load_detector, print_machine, spread, table

# Detectors of COCO number its 90 ids from 0. What has a number for a name here is not scored.
NAMED = {
    0: "person", 1: "bicycle", 2: "car", 3: "motorbike", 4: "aeroplane", 5: "bus", 6: "train", 8: "boat",
    15: "bird", 16: "cat", 17: "dog", 18: "horse", 19: "sheep", 20: "cow", 43: "bottle", 61: "chair",
    62: "sofa", 63: "pottedplant", 66: "diningtable", 71: "tvmonitor",
}
COCO = tuple(NAMED.get(label, str(label)) for label in range(90))


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a labelled set")
    parser.add_argument(
        "--classes", nargs="+", default=["person"], help="of the set, under VOC's names; what is scored"
    )
    parser.add_argument("--split", help="of the set; as kerasdet.data.load chooses if not given")
    parser.add_argument(
        "--model", nargs="+", required=True, help=".tflite; presets and .keras without latency"
    )
    parser.add_argument("--peer", required=True, help="a .tflite with SSD's four outputs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args(argv)

    from kerasdet import data, photo

    dataset = data.load(args.data, split=args.split).select(*args.classes)
    files = [args.peer, *(model for model in args.model if model.endswith(".tflite"))]
    picture = photo.read(dataset[0].path)
    times = interleave(
        {path: inference(path, args.threads, picture) for path in files}, args.rounds, settle=1
    )
    rows = []
    for model in [args.peer, *args.model]:
        scores = open_detector(model, args.threads).evaluate_detections(dataset)
        cells = ["-", "-", "-"]
        if model in times:
            cells = [
                f"{os.path.getsize(model) / 1e6:.2f}",
                spread(times[model] * 1000, ".2f"),
                spread(times[model] / times[args.peer], ".3f"),
            ]
        rows.append((model, *(f"{scores.get(key, math.nan):.3f}" for key in ("AP", "AP50", "MR")), *cells))
    print_machine(args.threads)
    boxes = sum(len(sample.boxes) for sample in dataset)
    print(f"{args.data}: {len(dataset)} photos, {boxes} boxes; latency on one of the photos")
    head = ("detector", "AP", "AP50", "MR", "MB", "ms, median (quartiles)", "time / peer")
    table(head, rows)
    return 0


def open_detector(model: str, threads: int):
    """Anything with `evaluate_detections`; a `.tflite` without labels gets COCO's."""
    from kerasdet.deploy import LiteRTDetector, read_metadata

    if not model.endswith(".tflite"):
        return load_detector(model)
    return LiteRTDetector(model, threads, classes=read_metadata(model)["classes"] or COCO)


if __name__ == "__main__":
    raise SystemExit(main())
