"""Where an int8 file loses accuracy: the noise that each layer's output carries, and where it comes in."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from kerasdet.deploy.litert import Runner
from kerasdet.deploy.operations import read_operations


@dataclasses.dataclass(frozen=True)
class LayerNoise:
    """One layer's output in the int8 file, beside the same in the float file.

    The noise of an output is the mean squared difference over the mean square of the float file's values, and
    that as a mean over the photos.

    Attributes:
        layer, operator: of the int8 file.
        noise: of the output.
        before: of the noisiest input.
        last: whether eight bits end behind it for good: this is the noise that heads and decoding get.
    """

    layer: str
    operator: str
    noise: float
    before: float
    last: bool = False

    @property
    def added(self) -> float:
        """How much more noise goes out than comes in; below 0 where a layer averages it away."""
        return self.noise - self.before

    @property
    def decibels(self) -> float:
        """The output's signal-to-noise ratio: 20 dB is noise of 1 %, 10 dB of 10 %."""
        return -10 * math.log10(max(self.noise, 1e-10))


def quantisation_noise(
    reference: str | os.PathLike, target: str | os.PathLike, squares: Iterable[np.ndarray],
) -> list[LayerNoise]:
    """Runs a float file and its int8 version on the same photos, tensor by tensor.

    ai-edge-quantizer's validator runs them and matches tensors by name.

    Args:
        reference: the `.tflite` in float32.
        target: the same detector's `.tflite` in int8, with the same outputs and input.
        squares: photos as the network sees them, (S, S, 3) uint8 each.

    Returns:
        The layers that compute in eight bits, where most noise comes in first. Much noise at one layer may be
        little at the last ones, which is what counts: see `noise_without`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a `.tflite`; files that are not of one detector; nothing in eight bits; no photos.
        ImportError: ai-edge-quantizer is missing.
    """
    squares = list(squares)
    if not squares:
        raise ValueError("there are no photos; give some of what the detector is to see")
    _, found = (read_operations(path) for path in (reference, target))
    runner, other = (Runner(Path(path).read_bytes()) for path in (reference, target))
    if (runner.input_shape, runner.dtype) != (other.input_shape, other.dtype):
        raise ValueError(
            f"{reference} takes {runner.dtype.__name__} {runner.input_shape} and {target} "
            f"{other.dtype.__name__} {other.input_shape}; give the two exports of one detector, with the "
            "same image size and input_dtype"
        )
    samples = [{"images": square[None].astype(runner.dtype)} for square in squares]
    measured = _compare(reference, target, samples)
    leads = set()  # tensors that lead to a QUANTIZE, so that eight bits begin again
    for op in reversed(found):
        if op.name == "QUANTIZE" or any(tensor.name in leads for tensor in op.outputs):
            leads.update(tensor.name for tensor in op.inputs)
    ends = {op.inputs[0].name for op in found if op.name == "DEQUANTIZE"} - leads
    noise, rows = {}, []
    for op in found:
        before = max((noise.get(tensor.name, 0.0) for tensor in op.computed), default=0.0)
        for tensor in op.outputs:
            # What the quantiser put in between, such as QUANTIZE, has no partner and hands noise on.
            noise[tensor.name] = measured.get(tensor.name, before)
        output = op.outputs[0]
        if output.dtype == "int8" and output.name in measured:
            last = output.name in ends
            rows.append(LayerNoise(op.layer, op.name, measured[output.name], before, last))
    if not rows:
        raise ValueError(
            f"{target}: no layer computes in eight bits and has its counterpart in {reference}; give the "
            "float export first and the int8 export of the same detector second"
        )
    return sorted(rows, key=lambda row: -row.added)


def last_noise(rows: list[LayerNoise]) -> float:
    """The noise where eight bits end, the mean of the last layers'."""
    return float(np.mean([row.noise for row in rows if row.last]))


def noise_without(
    reference: str | os.PathLike, squares: Iterable[np.ndarray], layers: Iterable[str],
    keep_float: str | None = None, progress: bool = False,
) -> dict[str, float]:
    """What noise is left at the end if a layer stays in float, tried for each of some layers.

    Args:
        reference: the `.tflite` in float32. For each layer it is made int8 anew.
        squares: photos as the network sees them, (S, S, 3) uint8 each, for the ranges and the comparison.
        layers: names, as `quantisation_noise` gives them.
        keep_float: what else stays in float, as `export` has it; a file's `kerasdet.json` says what did.
        progress: show a progress bar.

    Returns:
        layer -> `last_noise` with that layer in float too, and "" -> that without.
    """
    from kerasdet.deploy.quantise import quantise

    data, squares, found = Path(reference).read_bytes(), list(squares), {}
    tried = ["", *layers]
    if progress:
        from rich.progress import track

        tried = track(tried, description="Trying layers in float")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.tflite"
        for layer in tried:
            path.write_bytes(quantise(data, squares, in_float(keep_float, layer)))
            found[layer] = last_noise(quantisation_noise(reference, path, squares))
    return found


def in_float(keep_float: str | None, layer: str) -> str | None:
    """A pattern for what stays in float, and for one layer more; of that none if it is ""."""
    return "|".join(filter(None, [keep_float, layer and f"^{re.escape(layer)}$"])) or None


def _compare(reference, target, samples) -> dict[str, float]:
    """Tensor that both files have -> mean noise over the samples."""
    try:
        from ai_edge_quantizer import model_validator
        from ai_edge_quantizer.utils.validation_utils import ValidationErrorMetric
    except ImportError as error:
        raise ImportError(
            f"comparing needs ai-edge-quantizer ({error}); install or upgrade it: "
            "pip install -U ai-edge-quantizer"
        ) from error
    metric = ValidationErrorMetric.SNR  # the place in its answer; what it holds is `_noise`
    functions: list[Callable] = [_noise]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = model_validator.compare_model(
                Path(reference).read_bytes(), Path(target).read_bytes(), {"serving_default": samples},
                [metric], functions, num_threads=2,
            )
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{reference} and {target} cannot be compared ({' '.join(str(error).split())}); give the "
                "float and the int8 export of one detector, with the same outputs"
            ) from error
    return {name: values[metric.value] for name, values in result.get_all_tensor_results().items()}


def _noise(noisy, signal) -> float:
    noisy, signal = (np.asarray(values, np.float64) for values in (noisy, signal))
    return float(np.mean((noisy - signal) ** 2) / max(float(np.mean(signal**2)), 1e-12))
