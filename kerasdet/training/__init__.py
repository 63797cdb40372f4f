"""What happens around `fit`: weight averages, checkpoints, run folders, guards, rates."""

import importlib

_LAZY = {
    "EMA": "kerasdet.ema",
    "Checkpoint": "kerasdet.training.checkpoint",
    "NaNGuard": "kerasdet.nan_guard",
    "Stage": "kerasdet.training.stages",
    "lr_find": "kerasdet.training.lr_range",
    "start_from": "kerasdet.training.start",
    "train": "kerasdet.training.run",
    "train_in_stages": "kerasdet.training.stages",
}
__all__ = list(_LAZY)


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'kerasdet.training' has no attribute {name!r}")
