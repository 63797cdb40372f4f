"""kerasdet: object detectors in Keras 3 that end on a phone."""

from __future__ import annotations

import importlib
import os

__version__ = "0.1.0"

# By itself, TensorFlow gives the memory of every large tensor back to the system and is handed it anew, page
# by page, which on a CPU takes a fifth of a training step and more (bench/memory_pool.py). With this it keeps
# a pool. It looks when it first needs memory; what the user has set stays.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")

# Names are imported when they are first used: `import kerasdet` needs neither Keras nor TensorFlow.
_LAZY = {
    "Detector": ("kerasdet.detector", "Detector"),
    "Detections": ("kerasdet.detections", "Detections"),
    "image_pyramid": ("kerasdet.pyramid", "image_pyramid"),
    "load": ("kerasdet.zoo", "load_file"),
}
_MODULES = (
    "backbones", "boxes", "card", "data", "deploy", "detections", "detector", "layers", "losses",
    "metrics", "models", "photo", "pyramid", "training", "views", "zoo",
)
__all__ = ["Detections", "Detector", "image_pyramid", "load", *_MODULES]


def __getattr__(name: str):
    if name in _LAZY:
        module, attribute = _LAZY[name]
        return getattr(importlib.import_module(module), attribute)
    if name in _MODULES:
        return importlib.import_module(f"kerasdet.{name}")
    raise AttributeError(f"module 'kerasdet' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
