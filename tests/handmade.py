"""Targets and raw heads made by hand, for tests of targets and losses."""

import numpy as np
from keras import ops


def objects(*rows, labels=None, weights=None, ignore=(), parts=None):
    """Targets of one photo: rows are boxes in pixels; two padding rows follow."""
    n = len(rows)
    boxes = np.zeros((1, n + 2, 4), np.float32)
    boxes[0, :n] = np.reshape(rows, (n, 4))
    targets = {
        "boxes": boxes,
        "labels": np.array([[*(labels or [0] * n), -1, -1]], np.int32),
        "weights": np.array([[*(weights or [1] * n), 0, 0]], np.float32),
        "ignore": np.zeros((1, 3, 4), np.float32),
    }
    targets["ignore"][0, : len(ignore)] = np.reshape(ignore, (len(ignore), 4))
    if parts is not None:
        targets["parts"] = np.zeros((1, n + 2, 1, 4), np.float32)
        targets["parts"][0, :n, 0] = [row if row else [0] * 4 for row in parts]
        targets["part_weights"] = np.zeros((1, n + 2, 1), np.float32)
        targets["part_weights"][0, :n, 0] = [row is not None for row in parts]
    return targets


def arrays(goal):
    return {key: ops.convert_to_numpy(value)[0] for key, value in goal.items()}


def raw_maps(detector, batch=1, **values):
    """Raw heads that hold one value a channel everywhere."""
    maps = {}
    for key, tensor in detector.output.items():
        maps[key] = np.zeros((batch, *tensor.shape[1:]), np.float32)
        maps[key] += np.asarray(values.get(key, 0.0), np.float32)
    return maps


def losses(detector, targets, raw):
    parts = detector.loss_parts(
        {k: ops.convert_to_tensor(v) for k, v in targets.items()},
        {k: ops.convert_to_tensor(v) for k, v in raw.items()},
    )
    return {key: float(ops.convert_to_numpy(value)) for key, value in parts.items()}
