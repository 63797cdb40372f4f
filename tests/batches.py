"""Batches of the loader, and what it reads of a detector, for the tests of both."""

import types

import numpy as np


def model(dataset, **changes):
    """What the loader reads of a detector."""
    fields = {
        "image_size": 64, "resize": "stretch", "classes": dataset.classes, "parts": (), "size_multiple": 32,
        "given_proposals": 0, "mask_size": 0,
    }
    return types.SimpleNamespace(**fields | changes)


def epoch(batches):
    return list(iter(batches))


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return np.array_equal(a, b)
