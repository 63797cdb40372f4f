"""What sharing the backbone among regions saves: R-CNN, Fast R-CNN and Faster R-CNN on one photo.

    python bench/sharing.py [--backbone mobilenet_v2] [--size 320] [--proposals 50 300] [--photo PHOTO]

All three have the same backbone and, for each region, its last stage; weights are random, which changes no
time. R-CNN runs the whole backbone on every proposal, Fast R-CNN its last stage alone, and Faster R-CNN finds
as many proposals by itself, where the other two have to be given them: selective search is timed beside
them.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import print_machine, read_photo, table

from kerasdet.deploy.timing import interleave, spread


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=320, help="side of the network's square")
    parser.add_argument("--warp", type=int, default=224, help="side that R-CNN warps regions to")
    parser.add_argument("--proposals", type=int, nargs="+", default=[50, 300])
    parser.add_argument("--photo", help="a photo of yours in place of a drawn street")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    import cv2

    from kerasdet.data import selective_search

    picture = read_photo(options.photo)
    if hasattr(cv2, "ximgproc"):
        alone = interleave({"search": lambda: selective_search(picture)}, options.rounds)["search"]
        search = spread(alone, ".3f")
    else:
        search = "OpenCV's extra modules are not installed"
    rows = []
    for count in options.proposals:
        times = interleave(tasks(options, picture, count), options.rounds)
        shared = times["Fast R-CNN"]
        rows += [
            (f"{name}, {count} proposals", spread(each, ".3f"), spread(each / shared))
            for name, each in times.items()
        ]
    print_machine()
    print(f"selective search of the photo, seconds: {search}\n")
    table(("detector", "s a photo", "time / Fast R-CNN"), rows)
    return 0


def tasks(options, picture: np.ndarray, count: int) -> dict:
    """Name -> detecting on the photo once, with so many proposals."""
    from kerasdet.models.fast_rcnn import RCNN, FastRCNN
    from kerasdet.models.faster_rcnn import FasterRCNN

    common = {"backbone": options.backbone, "image_size": options.size}
    detectors = {
        "R-CNN": RCNN(("thing",), warp_size=options.warp, proposals=count, **common),
        "Fast R-CNN": FastRCNN(("thing",), neck="c4", proposals=count, **common),
        "Faster R-CNN": FasterRCNN(
            ("thing",), neck="c4", before=(2 * count, 2 * count), proposals=(count, count), **common
        ),
    }
    height, width = picture.shape[:2]
    corners = np.random.default_rng(0).uniform(0, (width, height), (count, 2, 2))
    boxes = np.sort(corners, axis=1).reshape(-1, 4).astype(np.float32)

    def task(detector):
        given = {"proposals": boxes} if detector.given_proposals else {}
        return lambda: detector.detect(picture, score=0.0, keep_photo=False, **given)

    return {name: task(detector) for name, detector in detectors.items()}


if __name__ == "__main__":
    raise SystemExit(main())
