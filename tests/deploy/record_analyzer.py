"""Records what TensorFlow 2.17's model analyzer says of the operators in `.tflite` files.

    python record_analyzer.py TENSORFLOW analyzer_2_17.json FILE.tflite ...

TENSORFLOW is the folder of an unpacked TensorFlow of 2.17 or older; later analyzers no longer check. Only the
analyzer's own library is loaded, so that it may be another TensorFlow than the one that is installed.

What the JSON file holds already stays in it, one operator of each kind, and the names of the files asked of:
those of presets as NAME.OUTPUTS.PRECISION.tflite, and small detectors of `test_delegates.py`. What our own
rules judge otherwise is printed.
"""

import collections
import importlib.util
import json
import re
import sys
from pathlib import Path

from kerasdet.deploy import delegates
from kerasdet.deploy.operations import read_operations

LIBRARY = "lite/python/analyzer_wrapper/_pywrap_analyzer_wrapper.so"
MASKS = ("ellipsisMask", "newAxisMask", "shrinkAxisMask", "keepNumDims", "depthMultiplier", "beta")


def refused_by(analyzer, path) -> set[int]:
    """Places of the operators that the analyzer warns of."""
    text = analyzer.ModelAnalyzer(str(path), True, True)
    found = re.search(r"compatibility issues at nodes ([\d, ]+) ", text)
    return {int(place) for place in found[1].split(",")} if found else set()


def widened(operations) -> set[str]:
    """Names of the weights that are stored as float16; each has a DEQUANTIZE."""
    outputs = [op.outputs[0] for op in operations if op.name == "DEQUANTIZE"]
    return {tensor.name for tensor in outputs if tensor.constant}


def described(op, halves=()) -> dict:
    """An operator as far as the analyzer's rules look at it.

    A tensor is [dtype, shape, constant]; where it is among `halves`, see `widened`, "float16" stands for the
    last: of those the analyzer does not know that they are constant, the delegate does.
    """
    def all_of(tensors):
        return [
            [tensor.dtype, list(tensor.shape), "float16" if tensor.name in halves else tensor.constant]
            for tensor in tensors
        ]

    return {
        "name": op.name,
        "inputs": all_of(op.inputs),
        "outputs": all_of(op.outputs),
        "options": {key: value for key, value in op.options.items() if key in MASKS},
    }


def kind(entry: dict) -> str:
    """What makes two entries the same case, whatever is said of them: all but the sides' lengths."""
    tensors = [
        [[dtype, len(shape), constant] for dtype, shape, constant in entry[side]]
        for side in ("inputs", "outputs")
    ]
    return json.dumps([entry["name"], *tensors, entry["options"]])


def main(library, recorded, *files):
    files = [Path(path) for path in files]
    spec = importlib.util.spec_from_file_location("_pywrap_analyzer_wrapper", Path(library) / LIBRARY)
    analyzer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(analyzer)
    recorded = Path(recorded)
    known = json.loads(recorded.read_text()) if recorded.exists() else {"files": [], "operators": []}
    entries = {(kind(entry), entry["taken"]): entry for entry in known["operators"]}
    count, differences = 0, collections.Counter()
    for path in files:
        refused, operations = refused_by(analyzer, path), read_operations(path)
        halves = widened(operations)
        for op in operations:
            count += 1
            entry = described(op, halves) | {"taken": op.index not in refused}
            entries.setdefault((kind(entry), entry["taken"]), entry)
            reason = delegates.gpu(op)
            if (reason is None) != entry["taken"]:
                stored = any(constant == "float16" for *_, constant in entry["inputs"])
                differences[op.name, entry["taken"], reason, stored] += 1
    names = sorted({*known["files"], *(path.name for path in files)})
    ordered = sorted(entries.values(), key=lambda entry: (entry["name"], kind(entry), entry["taken"]))
    names_text, entries_text = (",\n".join(map(json.dumps, each)) for each in (names, ordered))
    recorded.write_text(f'{{"files": [\n{names_text}\n], "operators": [\n{entries_text}\n]}}\n')
    for (name, taken, reason, stored), times in sorted(differences.items(), key=str):
        said, where = "taken" if taken else "refused", ", with weights in float16" if stored else ""
        print(f"{times} {name}{where}: {said} by the analyzer; our rules: {reason or 'taken'}")
    print(f"{count} operators of {len(files)} files, {sum(differences.values())} of which we judge otherwise")
    print(f"{len(entries)} verdicts in {recorded}")


if __name__ == "__main__":
    main(*sys.argv[1:])
