"""Writes a detector into files for devices, and runs those files.

Nothing heavy is imported until it is used: `LiteRTDetector` needs neither Keras nor TensorFlow.
"""

import importlib

_HOMES = {
    "export": "exporter",
    "ExportReport": "report",
    "ParityError": "report",
    "ConversionError": "convert",
    "LiteRTDetector": "litert",
    "read_metadata": "metadata",
    "delegate_report": "delegates",
    "quantisation_noise": "noise",
}

__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'kerasdet.deploy' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
