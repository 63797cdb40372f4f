"""evaluate: every metric of a detector on a data set, in one go."""

from __future__ import annotations

from kerasdet.metrics.coco import coco_metrics, mask_metrics, part_metrics
from kerasdet.metrics.matching import class_map, pair
from kerasdet.metrics.miss_rate import HEIGHTS, log_average_miss_rate
from kerasdet.metrics.voc import voc_metrics

# Names of the class that miss rates are of, in any case of letters; the first one that a set has.
PEDESTRIANS = ("person", "pedestrian", "people", "persons", "pedestrians")


def evaluate(detector, dataset, batch_size=16, progress=False, voc=False, **options):
    """Runs a detector over a data set and scores what it finds.

    Photos are read and detected `batch_size` at a time and not kept, so memory does not grow with
    their number.

    Args:
        detector: has `.classes` and `.detect(paths, score, batch_size, keep_photo)` -> list of `Detections`;
            a `Detector`, or a `.tflite` file's `LiteRTDetector`. One that is given proposals takes the
            set's, if it has any.
        dataset: sequence of `Sample` with `.classes` and `.parts`.
        batch_size: photos that are read, and go through the network, at a time.
        progress: show a progress bar.
        voc: add those of `voc_metrics`.
        options: further arguments of the detector's `detect`, such as flip.

    Returns:
        dict of float. From `coco_metrics`: "AP", "AP50", "AP75", "AP_small", "AP_medium",
        "AP_large", "AR" and its kin, "AP/<class>", "AP50/<class>". For a class called person or
        pedestrian, from `log_average_miss_rate` (lower is better): "MR" over all heights,
        "MR_near" (80 px and more), "MR_medium" (30 to 80 px), "MR_far" (under 30 px), heights in
        the photo's pixels. For each part that both sides have: "<part>_AP", "<part>_AP50". Of
        outlines, where both sides have them: "mask_AP", "mask_AP50".
        nan where the set has nothing of the kind.

    Raises:
        ValueError: empty set, or a class in it that the detector does not know.
    """
    found = pair(dataset, detect_all(detector, dataset, batch_size, progress, **options))
    metrics = coco_metrics(dataset, found)
    known = [name.casefold() for name in dataset.classes]
    for name in PEDESTRIANS:
        if name in known:
            label = known.index(name)
            metrics["MR"] = log_average_miss_rate(dataset, found, label=label)["MR"]
            for scale, height in HEIGHTS.items():
                miss_rate = log_average_miss_rate(dataset, found, height=height, label=label)
                metrics[f"MR_{scale}"] = miss_rate["MR"]
            break
    for part in dataset.parts:
        if all(part in detected.parts for detected in found):
            metrics.update(part_metrics(dataset, found, part))
    if any(any(sample.masks) for sample in dataset) and all(each.masks is not None for each in found):
        metrics.update(mask_metrics(dataset, found))
    if voc:
        metrics.update(voc_metrics(dataset, found))
    return metrics


def detect_all(detector, dataset, batch_size=16, progress=False, **options):
    """Yields what a detector finds on each photo of a set; arguments and errors as of `evaluate`."""
    class_map(detector.classes, dataset.classes)  # a misfit is told before the work, not after
    starts = range(0, len(dataset), batch_size)
    given = getattr(detector, "given_proposals", 0) and any(len(sample.proposals) for sample in dataset)
    if progress:
        from rich.progress import track

        starts = track(starts, description="Evaluating")
    for start in starts:
        stop = min(start + batch_size, len(dataset))
        samples = [dataset[i] for i in range(start, stop)]
        if given:
            options["proposals"] = [sample.proposals for sample in samples]
        paths = [sample.path for sample in samples]
        yield from detector.detect(paths, score=0.0, batch_size=batch_size, keep_photo=False, **options)
