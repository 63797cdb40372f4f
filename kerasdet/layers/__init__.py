"""Layers that the detectors are built from."""

from kerasdet.layers.l2_norm import L2Norm

__all__ = ["L2Norm"]
