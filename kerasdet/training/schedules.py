"""How the learning rate goes: a linear warm-up, then a cosine, steps, or nothing."""

from __future__ import annotations

import keras
from keras import ops

SCHEDULES = ("cosine", "step", "constant")
# The rate begins at this part of its highest, and a cosine ends there.
LOWEST = 0.01
# The rate rises over this share of the steps, at most so many of them, where nobody says.
WARM_UP, MOST_WARM_UP = 0.1, 300
# Shares of all steps after which a tenth of the rate is left: 160 and 180 of 200 epochs.
DROPS = (0.8, 0.9)


def schedule(kind: str, rate: float, steps: int, warmup: int | None = None):
    """A learning rate for `steps` steps.

    Args:
        kind: "cosine" falls along half a cosine to 1 % of the rate; "step" falls to a tenth after 80 % of
            the steps and to a hundredth after 90 %; "constant" stays.
        rate: the highest.
        steps: of the whole training.
        warmup: steps in which it first rises, in a line, from 1 % of the rate; None takes a tenth of all
            steps, 300 at most.

    Returns:
        A Keras `LearningRateSchedule`.

    Raises:
        ValueError: another kind, or a warm-up that takes all steps.

    Source: Zhang et al. 2019, "Bag of Freebies", section 3.3, and its published code; there the rate begins
    and ends at 0, with which the first and the last step teach nothing.
    """
    if kind not in SCHEDULES:
        raise ValueError(f"schedule is {kind!r}; give one of {', '.join(SCHEDULES)}")
    if warmup is None:
        warmup = max(1, min(MOST_WARM_UP, int(steps * WARM_UP)))
    elif not 0 <= warmup < max(1, steps):
        raise ValueError(f"the warm-up takes {warmup} steps of {steps}; give 0 or more, and fewer than all")
    if kind == "step":
        return StepDecay(rate, [round(steps * share) for share in DROPS], warmup)
    # A cosine that falls to the whole of the rate stays at it.
    alpha = LOWEST if kind == "cosine" else 1.0
    rising = {"warmup_target": rate, "warmup_steps": warmup} if warmup else {}
    return keras.optimizers.schedules.CosineDecay(
        rate * LOWEST if warmup else rate, max(1, steps - warmup), alpha=alpha, **rising
    )


@keras.saving.register_keras_serializable(package="kerasdet")
class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises in a line, and then falls to a tenth at each of some steps.

    Args:
        rate: the highest.
        drops: steps at which it falls.
        warmup: steps in which it rises from 1 % of the rate.
    """

    def __init__(self, rate: float, drops, warmup: int = 0):
        super().__init__()
        self.rate, self.drops, self.warmup = rate, list(drops), warmup

    def __call__(self, step):
        step = ops.cast(step, "float32")
        fallen = sum(ops.cast(step >= drop, "float32") for drop in self.drops)
        rate = self.rate * ops.power(0.1, fallen)
        rising = self.rate * (LOWEST + (1 - LOWEST) * step / max(1, self.warmup))
        return ops.where(step < self.warmup, rising, rate)

    def get_config(self):
        return {"rate": self.rate, "drops": self.drops, "warmup": self.warmup}
