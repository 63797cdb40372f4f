"""The learning-rate range test: from which rate on a detector learns, and which is too high for it."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np

from kerasdet.backbones.common import leaves
from kerasdet.training.optimizer import adamw

# A loss so many times the lowest one has exploded.
EXPLODED = 4.0
# The stretch where the loss falls holds all of its fall but this share at either end; a fall that is a
# smaller share of the loss than this is none.
MARGIN, SLIGHT = 0.1, 0.05


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Attributes:
        rates: (n,) float64, the rate of each step, rising.
        losses: (n,) float64, the loss of each step's batch.
        exploded: whether it ended because the loss did, at the last rate.
    """

    rates: np.ndarray
    losses: np.ndarray
    exploded: bool

    @property
    def falls(self) -> tuple[float, float] | None:
        """The lowest and the highest rate of the stretch where the loss falls; None if it never does."""
        return falling_stretch(self.rates, smooth(self.losses))

    def draw(self):
        """matplotlib.figure.Figure: loss against rate, and the stretch where it falls."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.5), dpi=100, layout="constrained")
        panel = figure.subplots()
        smoothed = smooth(self.losses)
        panel.plot(self.rates, self.losses, color="0.75", linewidth=1, label="loss of a batch")
        panel.plot(self.rates, smoothed, linewidth=2, label="smoothed")
        if self.falls:
            low, high = self.falls
            label = f"falls from {low:.1e} to {high:.1e}"
            panel.axvspan(low, high, color="tab:green", alpha=0.15, label=label)
        # One exploded batch would press all else to a line.
        panel.set_ylim(min(0.0, smoothed.min()), 1.5 * max(smoothed[0], smoothed.min()))
        panel.set_xscale("log")
        panel.set_xlabel("learning rate")
        panel.set_ylabel("loss")
        panel.grid(alpha=0.3)
        panel.legend()
        return figure


def lr_find(
    detector, batches, *, lowest: float = 1e-6, highest: float = 1.0, steps: int = 100,
    progress: bool = False,
) -> RangeTest:
    """Trains a copy of a detector with a rate that rises exponentially, until the loss explodes.

    The detector itself is not changed: neither its weights nor its optimizer's state.

    Args:
        detector: a `kerasdet.Detector`. The copy has its optimizer, or where it is not compiled, that of
            `train`.
        batches: what `Dataset.batches(..., training=True)` gives.
        lowest, highest: of the rates.
        steps: from one to the other; a batch each.
        progress: show a progress bar.

    Raises:
        ValueError: rates that do not rise from above 0, fewer than ten steps, or a loss that is not finite
            from the beginning.

    Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3.
    """
    if not 0 < lowest < highest or steps < 10:
        raise ValueError(
            f"lowest={lowest}, highest={highest}, steps={steps}: give rates that rise from above 0, and 10 "
            "steps or more"
        )
    copy = _copy(detector)
    rates, losses, best, running = [], [], math.inf, 0.0
    todo = zip(np.geomspace(lowest, highest, steps), batches.endless(), strict=False)
    if progress:
        from rich.progress import track

        todo = track(todo, "Raising the rate", total=steps)
    for number, (rate, (images, targets)) in enumerate(todo, 1):
        copy.optimizer.learning_rate = rate
        loss = float(copy.train_on_batch(images, targets, return_dict=True)["loss"])
        if not math.isfinite(loss):
            break
        rates.append(rate)
        losses.append(loss)
        # Of single batches some are hard: what explodes is the running mean.
        running += (loss - running) / min(number, max(1, steps // 20))
        best = min(best, running)
        if running > EXPLODED * best:
            break
    if not rates:
        raise ValueError("the loss of the first batch is not finite; see what kerasdet train says of it")
    return RangeTest(np.array(rates), np.array(losses), exploded=len(rates) < steps)


def _copy(detector):
    """A compiled detector of the same weights, of which the same are trained."""
    copy = type(detector).from_config(detector.get_config())
    for own, theirs in zip(leaves(copy), leaves(detector), strict=True):
        own.trainable = theirs.trainable
    copy.set_weights(detector.get_weights())
    optimizer = detector.optimizer if detector.compiled else None
    # Of mixed precision, what is in the wrapping that `compile` adds again.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if optimizer is None or isinstance(optimizer, keras.optimizers.MultiOptimizer):  # which has several rates
        optimizer = adamw(1.0)
    config = optimizer.get_config() | {"learning_rate": 1.0}
    copy.compile(type(optimizer).from_config(config), ema=None)
    return copy


def smooth(losses: np.ndarray) -> np.ndarray:
    """Means over a tenth of all values, around each."""
    reach = len(losses) // 20
    return np.array([
        losses[max(0, i - reach) : i + reach + 1].mean() for i in range(len(losses))
    ])


def falling_stretch(rates: np.ndarray, losses: np.ndarray) -> tuple[float, float] | None:
    """Where a loss falls to its lowest value.

    `falling_stretch([1, 2, 3, 4, 5, 6], [10, 10, 6, 2, 2, 9])` is (2, 4).

    Args:
        rates: (n,), rising.
        losses: (n,), smoothed.

    Returns:
        the rate at which the loss is for the last time in the uppermost tenth of its fall, and that at which
        it first comes into the lowest tenth; None where it does not fall by a twentieth.
    """
    lowest = int(np.argmin(losses))
    top, bottom = max(losses[: lowest + 1]), losses[lowest]
    fall = top - bottom
    if fall < SLIGHT * abs(top):
        return None
    before = np.asarray(losses[: lowest + 1])
    begin = int(np.flatnonzero(before >= top - MARGIN * fall)[-1])
    end = begin + int(np.flatnonzero(before[begin:] <= bottom + MARGIN * fall)[0])
    return float(rates[begin]), float(rates[end])
