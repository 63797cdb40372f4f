"""A preset made on the spot, small and untrained, for the tests of the zoo and the command line."""

import keras
from harness import tiny_backbone

from kerasdet import zoo
from kerasdet.models.csp import CSP

FIELDS = {
    "aliases": ["tiny"],
    "summary": "Finds nothing; for tests.",
    "backbone": "tiny",
    "training": {
        "data": [{"name": "none", "photos": 1, "source": "drawn", "terms": "Apache-2.0"}],
        "starting_weights": {"name": "random", "source": "none", "licence": "none"},
        "device": "CPU", "hours": 0.5, "command": "none", "epochs": 2,
        "curve": [{"epoch": 1, "val_AP": 0.1}, {"epoch": 2, "val_AP": 0.2}],
    },
    "scores": [
        {
            "data": "drawn", "photos": 12, "precision": "keras", "AP": 0.5, "AP50": 0.75,
            "head_AP50": 0.25, "command": "kerasdet evaluate tiny drawn", "machine": "2-core CPU",
        }
    ],
    "latency": [
        {
            "precision": "int8", "bytes": 1_250_000, "milliseconds": 3.21, "threads": 2,
            "command": "none", "machine": "2-core CPU",
        }
    ],
    "deviations": ["Peaks instead of a threshold."],
    "licence": "Apache-2.0",
}


def tiny_csp(classes=("person",), parts=("head",), **options) -> CSP:
    """A CSP that is built in a second; weights from a fixed seed."""
    keras.utils.set_random_seed(5)
    detector = CSP(
        classes, backbone=tiny_backbone(64), image_size=64, stride=8, parts=parts, channels=16,
        target="dense", name="tiny", **options,
    )
    # Without it all cells score alike: the heads start almost at zero.
    head = detector.get_layer("head_center")
    kernel, bias = head.get_weights()
    head.set_weights([kernel * 100, bias])
    return detector


def write_preset(folder, **changes):
    """Saves the tiny CSP as a preset; `changes` replace fields of its card."""
    return zoo.save_preset(tiny_csp(), folder, FIELDS | changes)
