"""Whether one detector is better than another on photos at hand, or may only seem so.

    python bench/paired.py MODEL OTHER ... --data DATA [--split val]

A MODEL is a preset, a .keras or a .tflite file; the first is what the others are compared with. A TridentNet
has two rows: as it is, and with all of its branches, or with the middle one alone. Intervals are of 95 %, by
bootstrap over the photos; a "change", in AP or in the second table, is on the same draws of photos.
"""

from __future__ import annotations

import argparse

from arms import changed, print_compared
from common import print_machine

FIGURES = ("AP", "AP50", "AP_small", "AP_medium", "AP_large")


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a preset, a .keras or a .tflite file")
    parser.add_argument("--data", required=True, help="a labelled set, as kerasdet.data.load takes it")
    parser.add_argument("--split", help="else 'val', 'test' or what there is")
    parser.add_argument("--photos", type=int, help="only the first so many")
    options = parser.parse_args(argv)

    from kerasdet import cli_data, zoo
    from kerasdet.metrics import bootstrap
    from kerasdet.metrics.evaluation import detect_all

    data = cli_data.held_back(options.data, options.split)
    data = data.subset(range(min(len(data), options.photos or len(data))))
    detectors = {name: zoo.load_file(name) for name in options.models}
    for name, detector in detectors.items():
        data = data.known_to(detector)
        if data is None:
            parser.error(f"{name} knows no class that {options.data} and the models before it have")
    drawn = {}
    for name, detector in detectors.items():
        for row, looked_at in ways(name, detector).items():
            drawn[row] = bootstrap(data, detect_all(looked_at, data))
    print_machine()
    print(f"{data.name}, {len(data)} photos: {', '.join(data.classes)}\n")
    first = next(iter(drawn))
    print_compared("detector", drawn, FIGURES, first)
    return 0


def ways(name: str, detector) -> dict:
    """A detector under its name; one of several branches also as it is not, with all or with one of them."""
    found = {name: detector}
    if len(getattr(detector, "dilations", ())) > 1:
        other, words = {
            "middle": ("all", "all branches"), "all": ("middle", "middle branch"),
        }[detector.inference]
        found[f"{name}, {words}"] = changed(detector, inference=other)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
