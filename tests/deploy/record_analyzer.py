"""Records what TensorFlow 2.17's model analyzer says of the operators in `.tflite` files.

    python record_analyzer.py TENSORFLOW FILE.tflite ... > analyzer_2_17.json

TENSORFLOW is the folder of an unpacked TensorFlow of 2.17 or older; later analyzers no longer check. Only the
analyzer's own library is loaded, so that it may be another TensorFlow than the one that is installed.
"""

import importlib.util
import json
import re
import sys
from pathlib import Path

from kerasdet.deploy.operations import read_operations

LIBRARY = "lite/python/analyzer_wrapper/_pywrap_analyzer_wrapper.so"
MASKS = ("ellipsisMask", "newAxisMask", "shrinkAxisMask", "keepNumDims", "depthMultiplier", "beta")


def refused_by(analyzer, path) -> set[int]:
    """Places of the operators that the analyzer warns of."""
    text = analyzer.ModelAnalyzer(str(path), True, True)
    found = re.search(r"compatibility issues at nodes ([\d, ]+) ", text)
    return {int(place) for place in found[1].split(",")} if found else set()


def described(op) -> dict:
    """An operator as far as the analyzer's rules look at it."""
    return {
        "name": op.name,
        "inputs": [[tensor.dtype, list(tensor.shape), tensor.constant] for tensor in op.inputs],
        "outputs": [[tensor.dtype, list(tensor.shape), False] for tensor in op.outputs],
        "options": {key: value for key, value in op.options.items() if key in MASKS},
    }


def kind(entry: dict) -> str:
    """What makes two entries the same case: all but the sides' lengths."""
    tensors = [[dtype, len(shape), constant] for dtype, shape, constant in entry["inputs"] + entry["outputs"]]
    return json.dumps([entry["name"], tensors, entry["options"], entry["taken"]])


def main(library, *files):
    spec = importlib.util.spec_from_file_location("_pywrap_analyzer_wrapper", Path(library) / LIBRARY)
    analyzer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(analyzer)
    entries = {}
    for path in files:
        refused = refused_by(analyzer, path)
        for op in read_operations(path):
            entry = described(op) | {"taken": op.index not in refused}
            entries.setdefault(kind(entry), entry)
    lines = ",\n".join(json.dumps(entry) for entry in sorted(entries.values(), key=lambda one: one["name"]))
    print(f"[\n{lines}\n]")


if __name__ == "__main__":
    main(*sys.argv[1:])
