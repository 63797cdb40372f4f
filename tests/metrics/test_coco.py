"""COCO metrics against pycocotools fed with hand-written json, and against numbers by hand."""

import contextlib
import io
import json

import numpy as np
import pytest

from kerasdet import outlines
from kerasdet.data.dataset import Dataset
from kerasdet.data.sample import Sample
from kerasdet.detections import Detections
from kerasdet.metrics import coco_metrics, part_metrics
from kerasdet.metrics.coco import mask_metrics


def sample(boxes, labels=None, **more):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int32) if labels is None else np.array(labels, np.int32)
    return Sample("photo.jpg", boxes, labels, **more)


def regions(*boxes):
    return np.array(boxes, np.float32).reshape(-1, 4)


def found(boxes, scores, labels=None, classes=("thing",), **more):
    labels = [0] * len(scores) if labels is None else labels
    return Detections(boxes, scores, labels, classes, **more)


def one_class(samples, **more):
    return Dataset(samples, classes=("thing",), **more)


# === Against pycocotools ===

HAND_WRITTEN = """{
 "images": [{"id": 11}, {"id": 12}, {"id": 13}],
 "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
 "annotations": [
  {"id": 1, "image_id": 11, "category_id": 1,
   "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0},
  {"id": 2, "image_id": 11, "category_id": 2,
   "bbox": [50, 40, 60, 80], "area": 4800, "iscrowd": 0},
  {"id": 3, "image_id": 12, "category_id": 1,
   "bbox": [5, 5, 200, 100], "area": 20000, "iscrowd": 0},
  {"id": 4, "image_id": 12, "category_id": 1,
   "bbox": [150, 60, 40, 40], "area": 1600, "iscrowd": 0},
  {"id": 5, "image_id": 12, "category_id": 1,
   "bbox": [300, 0, 50, 50], "area": 2500, "iscrowd": 1},
  {"id": 6, "image_id": 12, "category_id": 2,
   "bbox": [300, 0, 50, 50], "area": 2500, "iscrowd": 1}
 ]}"""
HAND_WRITTEN_RESULTS = """[
 {"image_id": 11, "category_id": 1, "bbox": [11, 10, 20, 20], "score": 0.875},
 {"image_id": 11, "category_id": 2, "bbox": [50, 44, 60, 80], "score": 0.5},
 {"image_id": 11, "category_id": 2, "bbox": [52, 40, 50, 80], "score": 0.25},
 {"image_id": 12, "category_id": 1, "bbox": [5, 15, 200, 100], "score": 0.75},
 {"image_id": 12, "category_id": 1, "bbox": [310, 5, 20, 20], "score": 0.9375},
 {"image_id": 12, "category_id": 2, "bbox": [305, 5, 20, 20], "score": 0.8125},
 {"image_id": 12, "category_id": 1, "bbox": [154, 64, 40, 40], "score": 0.125},
 {"image_id": 13, "category_id": 1, "bbox": [0, 0, 30, 30], "score": 0.625}
]"""


def by_pycocotools(truth, results, folder):
    """The twelve figures of the original, read from files."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(objects, objects.loadRes(str(folder / "results.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    keys = "AP AP50 AP75 AP_small AP_medium AP_large AR_1 AR_10 AR AR_small AR_medium AR_large"
    return dict(zip(keys.split(), evaluation.stats, strict=True)), evaluation


def as_ours(truth, results):
    """The same as samples and detections."""

    def xyxy(rows):
        boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    names = tuple(category["name"] for category in truth["categories"])
    samples, detections = [], []
    for image in truth["images"]:
        rows = [row for row in truth["annotations"] if row["image_id"] == image["id"]]
        plain = [row for row in rows if not row["iscrowd"]]
        crowd = [row for row in rows if row["iscrowd"] and row["category_id"] == 1]
        labels = [row["category_id"] - 1 for row in plain]
        samples.append(sample(xyxy(plain), labels, ignore=xyxy(crowd), image_id=image["id"]))
        rows = [row for row in results if row["image_id"] == image["id"]]
        labels = [row["category_id"] - 1 for row in rows]
        detections.append(found(xyxy(rows), [row["score"] for row in rows], labels, names))
    return Dataset(samples, classes=names), detections


def test_agrees_with_pycocotools_on_hand_written_json(tmp_path):
    truth, results = json.loads(HAND_WRITTEN), json.loads(HAND_WRITTEN_RESULTS)
    expected, evaluation = by_pycocotools(truth, results, tmp_path)
    metrics = coco_metrics(*as_ours(truth, results))
    assert 0 < expected["AP"] < 1
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(value, abs=1e-6), key
    for label, name in enumerate(("cat", "dog")):
        precision = evaluation.eval["precision"][:, :, label, 0, 2]
        assert metrics[f"AP/{name}"] == pytest.approx(precision.mean(), abs=1e-6)
        assert metrics[f"AP50/{name}"] == pytest.approx(precision[0].mean(), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_pycocotools_on_crowded_scenes_with_ties(seed, tmp_path):
    # Boxes and scores on coarse grids make equal overlaps and equal scores, where order matters.
    rng = np.random.default_rng(seed)
    truth = {
        "images": [{"id": i} for i in range(1, 9)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [],
    }
    results = []

    def box(size):
        return [int(v) for v in (*rng.integers(0, 12, 2) * 8, *rng.integers(1, size, 2) * 8)]

    def annotate(image, category, bbox, crowd):
        row = {"id": len(truth["annotations"]) + 1, "image_id": image, "category_id": category}
        area = bbox[2] * bbox[3]
        truth["annotations"].append(row | {"bbox": bbox, "area": area, "iscrowd": crowd})

    for image in range(1, 8):  # photo 8 has no object
        for _ in range(12):
            annotate(image, int(rng.integers(1, 3)), box(16), 0)
        crowd = box(10)
        for category in (1, 2):
            annotate(image, category, crowd, 1)
    for image in range(1, 9):
        for _ in range(130):  # more than count
            row = {"image_id": image, "category_id": int(rng.integers(1, 3)), "bbox": box(16)}
            results.append(row | {"score": int(rng.integers(1, 33)) / 32})

    expected, _ = by_pycocotools(truth, results, tmp_path)
    metrics = coco_metrics(*as_ours(truth, results))
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(value, abs=1e-9), key


# === By hand ===

BOX, OTHER, ELSEWHERE = [0, 0, 100, 100], [200, 200, 300, 300], [400, 0, 500, 100]


def test_perfect_detections_score_one_and_missing_sizes_nan():
    data = one_class([sample([BOX, OTHER]), sample([ELSEWHERE])])
    metrics = coco_metrics(data, [found([BOX, OTHER], [0.9, 0.8]), found([ELSEWHERE], [0.3])])
    assert [metrics["AP"], metrics["AP50"], metrics["AP75"]] == pytest.approx([1] * 3)
    assert [metrics["AR"], metrics["AP_large"], metrics["AP/thing"]] == pytest.approx([1] * 3)
    assert metrics["AR_1"] == pytest.approx(2 / 3)  # one of the two on the first photo
    assert np.isnan(metrics["AP_small"]) and np.isnan(metrics["AR_medium"])


def test_worked_example():
    # Two objects; in order of score: hit, stray, hit. Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
    # Interpolated: 1 at the 51 recall points 0 to .5, 2/3 at the 50 points .51 to 1.
    data = one_class([sample([BOX, OTHER])])
    metrics = coco_metrics(data, [found([BOX, ELSEWHERE, OTHER], [0.9, 0.8, 0.7])])
    assert [metrics["AP"], metrics["AP50"]] == pytest.approx([(51 + 50 * 2 / 3) / 101] * 2)
    assert metrics["AR"] == pytest.approx(1)


def test_shifted_boxes_pass_the_thresholds_below_their_overlap():
    # Shifted by a quarter: intersection 75, union 125, IoU .6 -> found at .5, .55 and .6 of ten.
    data = one_class([sample([BOX])])
    metrics = coco_metrics(data, [found([[25, 0, 125, 100]], [0.9])])
    assert metrics["AP50"] == pytest.approx(1)
    assert metrics["AP75"] == 0
    assert [metrics["AP"], metrics["AR"]] == pytest.approx([0.3] * 2)


def test_nothing_detected_scores_zero():
    metrics = coco_metrics(one_class([sample([BOX])]), [found([], [])])
    assert metrics["AP"] == metrics["AP50"] == metrics["AR"] == 0


def test_photos_without_objects_cost_precision_only():
    data = one_class([sample([]), sample([BOX])])
    clean = coco_metrics(data, [found([], []), found([BOX], [0.5])])
    assert clean["AP"] == pytest.approx(1)
    stray = coco_metrics(data, [found([BOX], [0.9]), found([BOX], [0.5])])
    assert stray["AP"] == pytest.approx(0.5)
    nothing_anywhere = coco_metrics(one_class([sample([])]), [found([BOX], [0.9])])
    assert np.isnan(nothing_anywhere["AP"])


def test_ignore_regions_absorb_detections_of_every_class():
    crowd = regions([390, 0, 600, 300])
    detections = [
        found([ELSEWHERE, ELSEWHERE, BOX, OTHER], [0.9, 0.8, 0.7, 0.6], [0, 1, 0, 1], "ab")
    ]
    with_region = Dataset([sample([BOX, OTHER], [0, 1], ignore=crowd)], classes=("a", "b"))
    without = Dataset([sample([BOX, OTHER], [0, 1])], classes=("a", "b"))
    assert coco_metrics(with_region, detections)["AP"] == pytest.approx(1)
    assert coco_metrics(without, detections)["AP"] == pytest.approx(0.5)


def test_classes_are_compared_by_name_and_unknown_detections_are_left_out():
    data = Dataset([sample([BOX, OTHER], [0, 1])], classes=("dog", "cat"))
    boxes, scores = [BOX, OTHER, ELSEWHERE], [0.7, 0.6, 0.9]
    detections = [found(boxes, scores, [2, 0, 1], ("cat", "car", "dog"))]
    assert coco_metrics(data, detections)["AP"] == pytest.approx(1)


def test_per_class_figures_can_be_left_out():
    metrics = coco_metrics(one_class([sample([BOX])]), [found([BOX], [0.5])], per_class=False)
    assert not [key for key in metrics if "/" in key]


def test_prints_nothing(capsys):
    coco_metrics(one_class([sample([BOX])]), [found([BOX], [0.5])])
    assert capsys.readouterr() == ("", "")


def test_a_class_the_detector_does_not_know_is_refused():
    data = Dataset([sample([BOX])], classes=("dog", "cat"))
    with pytest.raises(ValueError, match="'cat' besides"):
        coco_metrics(data, [found([BOX], [0.5], classes=("dog",))])


def test_empty_sets_and_wrong_lengths_are_refused():
    with pytest.raises(ValueError, match="no photos"):
        coco_metrics(one_class([]), [])
    with pytest.raises(ValueError, match="1 detections for 2 photos"):
        coco_metrics(one_class([sample([]), sample([])]), [found([], [])])


# === Parts ===

HEAD, OTHER_HEAD = [40, 0, 60, 20], [240, 200, 260, 220]


def heads(weights):
    parts = np.array([[HEAD], [OTHER_HEAD]], np.float32)
    weights = np.array(weights, np.float32).reshape(2, 1)
    return one_class([sample([BOX, OTHER], parts=parts, part_weights=weights)], parts=("head",))


def test_parts_are_scored_as_a_class_of_their_own():
    right = {"head": [HEAD, OTHER_HEAD]}
    swapped = {"head": [HEAD, ELSEWHERE]}
    detections = [found([BOX, OTHER], [0.9, 0.8], parts=right)]
    assert part_metrics(heads([1, 1]), detections, "head") == pytest.approx(
        {"head_AP": 1, "head_AP50": 1}
    )
    detections = [found([BOX, OTHER], [0.9, 0.8], parts=swapped)]
    half = 51 / 101  # one of two found at precision 1: recall points 0 to .5
    assert part_metrics(heads([1, 1]), detections, "head")["head_AP50"] == pytest.approx(half)


def test_unlabelled_parts_are_no_fault_within_their_object():
    detections = [found([OTHER, BOX], [0.9, 0.8], parts={"head": [OTHER_HEAD, HEAD]})]
    assert part_metrics(heads([1, 0]), detections, "head")["head_AP"] == pytest.approx(1)
    outside = [found([OTHER, BOX], [0.9, 0.8], parts={"head": [ELSEWHERE, HEAD]})]
    assert part_metrics(heads([1, 0]), outside, "head")["head_AP"] == pytest.approx(0.5)
    assert np.isnan(part_metrics(heads([0, 0]), detections, "head")["head_AP"])


def test_unknown_parts_are_refused():
    with pytest.raises(ValueError, match="no part 'tail'"):
        part_metrics(heads([1, 1]), [found([BOX], [0.5])], "tail")
    with pytest.raises(ValueError, match="photo.jpg: the detections have no part 'head'"):
        part_metrics(heads([1, 1]), [found([BOX], [0.5])], "head")


# === Outlines ===


def pixels(x1, y1, x2, y2, size=(100, 100)):
    mask = np.zeros(size, np.uint8)
    mask[y1:y2, x1:x2] = 1
    return outlines.encode(mask)


def test_outlines_are_scored_by_their_pixels_not_their_boxes():
    square = np.array([(10, 10), (60, 10), (60, 60), (10, 60)], np.float32)
    data = one_class([sample([[10, 10, 60, 60]], masks=((square,),), width=100, height=100)])
    box = [[10, 10, 60, 60]]
    right = found(box, [0.9], masks=(pixels(10, 10, 60, 60),))
    assert mask_metrics(data, [right]) == pytest.approx({"mask_AP": 1, "mask_AP50": 1})
    # 31 of 50 columns: an IoU of .62, which passes at .50, .55 and .60.
    part = found(box, [0.9], masks=(pixels(10, 10, 41, 60),))
    assert mask_metrics(data, [part]) == pytest.approx({"mask_AP": 0.3, "mask_AP50": 1})
    wrong = found(box, [0.9], masks=(pixels(70, 70, 90, 90),))
    assert mask_metrics(data, [wrong]) == {"mask_AP": 0, "mask_AP50": 0}


def test_finding_what_has_no_outline_is_no_fault():
    square = np.array([(10, 10), (30, 10), (30, 30), (10, 30)], np.float32)
    boxes = [[10, 10, 30, 30], [50, 50, 90, 90]]
    ignore = regions([0, 60, 20, 80])
    data = one_class([sample(boxes, masks=((square,), ()), ignore=ignore, width=100, height=100)])
    everything = found(
        [[50, 50, 90, 90], [0, 60, 20, 80], [10, 10, 30, 30]], [0.9, 0.8, 0.7],
        masks=(pixels(52, 52, 88, 88), pixels(2, 62, 18, 78), pixels(10, 10, 30, 30)),
    )
    assert mask_metrics(data, [everything])["mask_AP"] == pytest.approx(1)
    stray = found([[40, 0, 45, 8], *everything.boxes], [0.95, 0.9, 0.8, 0.7],
                  masks=(pixels(40, 0, 45, 8), *everything.masks))
    assert mask_metrics(data, [stray])["mask_AP"] == pytest.approx(0.5)
