"""Layers that the detectors are built from."""

from kerasdet.layers.l2_norm import L2Norm
from kerasdet.layers.offset_max_pool import Interleave, OffsetMaxPool

__all__ = ["Interleave", "L2Norm", "OffsetMaxPool"]
