"""Arms and tables of `claims.py two-stage`: FPN, dilation, TridentNet, and suppression level by level.

The detectors are the library's, at a size and width that a CPU trains: a pyramid of 64 channels, 256 units in
the head. Anchors and ranges are scaled to the square as everywhere.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from arms import Arm, Run, changed, print_compared
from common import read_photo, table

from kerasdet.deploy.timing import interleave, spread

SIZES = "AP_small", "AP_medium", "AP_large"
NECKS = {
    "fpn": "FPN: proposals and regions on every level",
    "c4": "one map at stride 16, the backbone's last stage on every region",
    "dc5": "one map of the dilated last stage at stride 16",
    "no_lateral": "top-down, without connections to the backbone's maps",
    "finest": "top-down, and predictions on the finest map alone",
    "bottom_up": "the backbone's maps as they are, as SSD has them",
}
# What a TridentNet is varied in; ranges None: scale-aware training is off.
TRIDENTS = {
    "dilation_1": ("one branch of dilation 1: the baseline", {"dilations": (1,)}),
    "dilation_2": ("one branch of dilation 2", {"dilations": (2,)}),
    "dilation_3": ("one branch of dilation 3", {"dilations": (3,)}),
    "two_branches": ("branches 1 and 2, ranges open", {"dilations": (1, 2)}),
    "trident_open": ("branches 1, 2, 3, ranges open, as TridentNet Fast is trained", {}),
    "four_branches": ("branches 1 to 4, ranges open", {"dilations": (1, 2, 3, 4)}),
    "trident": ("branches 1, 2, 3, each proposing objects of its size", {"ranges": "paper"}),
    "own_weights": ("as trident, each branch with weights of its own", {
        "ranges": "paper", "share_weights": False,
    }),
    "one_block": ("as trident, with one block", {"ranges": "paper", "blocks": 1}),
    "two_blocks": ("as trident, with two blocks", {"ranges": "paper", "blocks": 2}),
}
# Of voc12's objects 92 % are of the third branch's size and 20 % of the middle one's; of people 82 and 64 %.
ON_PEOPLE = "dilation_1", "trident_open", "trident"
PEOPLE = "people_"
# What is also looked at in another way: the row, the arm, and the name that its detections are kept under.
OVER_ALL, PYRAMID = "fpn, one suppression over all levels", "c4 on an image pyramid of 4 sizes"
MIDDLE, OF_THREE = "{}, middle branch alone", ("trident", "trident_open")
OTHERWISE = {OVER_ALL: ("fpn", "nms_over_all"), PYRAMID: ("c4", "image_pyramid")} | {
    MIDDLE.format(name): (name, "middle") for name in (*OF_THREE, *(PEOPLE + each for each in OF_THREE))
}
RECALL = 100, 1000
EPOCHS = 6


def arms(backbone: str) -> dict[str, Arm]:
    found = {
        name: Arm(about, functools.partial(_faster, backbone=backbone, neck=name))
        for name, about in NECKS.items()
    }
    found |= {
        name: Arm(about, functools.partial(_trident, backbone=backbone, **options))
        for name, (about, options) in TRIDENTS.items()
    }
    return found | {
        PEOPLE + name: dataclasses.replace(found[name], about=f"{name}, on people", data="people")
        for name in ON_PEOPLE
    }


def _faster(classes, size, weights, *, backbone, neck):
    from kerasdet.models.faster_rcnn import FasterRCNN

    return FasterRCNN(
        classes, backbone=backbone, backbone_weights=weights, image_size=size, neck=neck, channels=64,
        head_units=256, regions=32, before=(200, 500), proposals=(100, 100),
    )


def _trident(classes, size, weights, *, backbone, **options):
    from kerasdet.models.trident import TridentNet

    return TridentNet(
        classes, backbone=backbone, backbone_weights=weights, image_size=size, channels=64, regions=16,
        before=(200, 500), proposals=(100, 100), **options,
    )


# === What is kept of an arm ===


def keep(run: Run) -> None:
    """Proposals and detections that need no further training."""
    if run.name in NECKS:
        run.keep("proposals", lambda: _proposals(run))
    if run.name == "fpn":
        run.keep("nms_over_all", lambda: list(run.detect(changed(run.detector, per_level_nms=False))))
    if run.name == "c4":
        run.keep("image_pyramid", lambda: _on_pyramid(run))
    if run.name.removeprefix(PEOPLE) in OF_THREE:
        run.keep("middle", lambda: list(run.detect(run.detector.fast())))


def _proposals(run: Run) -> list:
    """The best 1000 of each photo, as detections of one class."""
    import keras

    from kerasdet import photo
    from kerasdet.detections import Detections

    most = max(RECALL)
    detector = changed(run.detector, before=[most, most], proposals=[most, most])
    boxes, scores = detector.propose(detector.output)
    network = keras.Model(detector.input, {"boxes": boxes, "scores": scores})
    network.compile(jit_compile=False)
    found = []
    for sample in run.val:
        picture = photo.read(sample.path)
        images, matrices = detector.squares([picture], 1)
        said = {key: np.asarray(value)[0] for key, value in network.predict_on_batch(images).items()}
        there = said["boxes"].any(axis=1)
        of_photo = photo.boxes_to_photo(said["boxes"][there], matrices[0], picture.shape[:2])
        found.append(Detections(of_photo, said["scores"][there], [0] * int(there.sum()), ("object",)))
    return found


def _on_pyramid(run: Run) -> list:
    import kerasdet

    side = run.options.size
    sizes = tuple(round(side * factor / 32) * 32 for factor in (2 / 3, 1, 4 / 3, 5 / 3))
    pyramid = kerasdet.image_pyramid(run.detector, sizes)
    return pyramid.detect([sample.path for sample in run.val], score=0.0, keep_photo=False)


# === Tables ===


def tables(runs: dict[str, Run]) -> None:
    drawn = {name: run.drawn() for name, run in runs.items()}
    drawn |= {
        row: runs[name].drawn(key) for row, (name, key) in OTHERWISE.items()
        if name in runs and runs[name].has(key)
    }
    on_people = [PEOPLE + name for name in ON_PEOPLE]
    groups = (
        ("1. Feature pyramids", "fpn", [*NECKS, PYRAMID]),
        ("2. Dilation", "dilation_1", ["dilation_1", "dilation_2", "dilation_3"]),
        ("3. Branches", "dilation_1", ["fpn", *TRIDENTS, *map(MIDDLE.format, OF_THREE)]),
        ("Branches on people", on_people[0], [*on_people, *map(MIDDLE.format, on_people)]),
        ("4. Suppression of proposals", "fpn", ["fpn", OVER_ALL]),
    )
    # The same arms against others than their group's first: what the goals are of.
    against = (
        ("Branches against a pyramid", "fpn", ["trident_open", "trident"]),
        *(
            (f"The middle branch of {name} against all", name, [MIDDLE.format(name)])
            for name in (*OF_THREE, *(PEOPLE + each for each in OF_THREE))
        ),
        ("Weights and blocks", "trident", ["own_weights", "one_block", "two_blocks"]),
    )
    groups += tuple(
        (title, baseline, [baseline, *names]) for title, baseline, names in against
        if baseline in drawn and any(name in drawn for name in names)
    )
    for title, baseline, names in groups:
        some = {name: drawn[name] for name in names if name in drawn}
        if some:
            print(f"{title}, photos: {runs[next(iter(some))].photos}")
            print_compared("arm", some, ("AP", *SIZES), baseline)
            print()
    recalled = {
        name: run.drawn("proposals", _recall) for name, run in runs.items()
        if name in NECKS and run.has("proposals")
    }
    if recalled:
        for count in RECALL:
            figures = [f"AR@{count}{size}" for size in ("", "_small", "_medium", "_large")]
            print(f"Recall of {count} proposals")
            print_compared("arm", recalled, figures, "fpn")
            print()
    times = {name: runs[name].detector for name in ("fpn", "c4") if name in runs and runs[name].trained}
    if times:
        _print_times(times)


def _recall(photos, proposals) -> dict:
    from kerasdet.metrics import bootstrap_recall

    return bootstrap_recall(photos, [one.boxes for one in proposals], RECALL)


def _print_times(detectors: dict) -> None:
    """Where a photo's time goes: the backbone; the pyramid, where there is one, and the proposal network's
    head; the suppression of proposals; and what is said of the regions."""
    import keras

    picture = read_photo(None)
    lines = []
    for name, detector in detectors.items():
        images, _ = detector.squares([picture], 1)
        over_all = changed(detector, per_level_nms=False)
        backbone = next(layer for layer in detector.layers if isinstance(layer, keras.Model))
        graphs = {
            "backbone": (backbone.input, backbone.output),
            "and proposal head": (detector.input, detector.output),
            "and proposals": (detector.input, detector.propose(detector.output)),
            "and proposals, one suppression": (over_all.input, over_all.propose(over_all.output)),
            "and regions": (detector.input, detector.heads(detector.output)),
        }
        graphs = {part: keras.Model(start, end) for part, (start, end) in graphs.items()}
        for graph in graphs.values():
            graph.compile(jit_compile=False)
        times = interleave(
            {part: functools.partial(graph.predict_on_batch, images) for part, graph in graphs.items()},
            rounds=30, settle=2,
        )
        whole = times["and regions"]
        lines += [
            (f"{name}: {part}", spread(1000 * each), spread(each / whole, ".2f"))
            for part, each in times.items()
        ]
    print("Time up to each part; with the proposal head stands the pyramid, where there is one")
    table(("part", "ms a photo", "share of the whole"), lines)
