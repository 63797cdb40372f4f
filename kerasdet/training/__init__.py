"""What happens around `fit`: weight averages, checkpoints, run folders."""

import importlib

_LAZY = {
    "EMA": "ema",
    "Checkpoint": "checkpoint",
    "Stage": "stages",
    "train": "run",
    "train_in_stages": "stages",
}
__all__ = list(_LAZY)


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(f"kerasdet.training.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'kerasdet.training' has no attribute {name!r}")
