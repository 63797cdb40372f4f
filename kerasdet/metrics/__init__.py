"""What a detector is worth: COCO mAP, log-average miss rate, and both inside `fit`; and VOC's AP.

`evaluate` measures a detector on a data set. `coco_metrics`, `part_metrics`, `voc_metrics` and
`log_average_miss_rate` score detections that are already there. `CocoMetrics` runs `evaluate` at
the end of an epoch. Nothing here imports Keras, pycocotools or a model before it is used.
"""

from __future__ import annotations

import importlib

_HOME = {
    "CocoMetrics": "callbacks",
    "bootstrap": "resampling",
    "bootstrap_recall": "resampling",
    "coco_metrics": "coco",
    "draw_mistakes": "mistakes",
    "evaluate": "evaluation",
    "find_mistakes": "mistakes",
    "interval": "resampling",
    "log_average_miss_rate": "miss_rate",
    "mistakes_cost": "mistakes",
    "part_metrics": "coco",
    "voc_metrics": "voc",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    # Names are fetched at first use, so that `import kerasdet` does not load Keras.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
