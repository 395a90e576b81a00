"""How the learning rate moves, and how many epochs a limited time allows."""

import math

from flyweight.compressor.training.settings import TrainingSettings


def learning_rate_at(step: int, steps: int, settings: TrainingSettings) -> float:
    """Return the rate of one step: a linear rise to the peak, then half a cosine down to zero.

    Goyal et al. 2017, section 2.2 (warm-up); Loshchilov and Hutter 2017, equation 5 without restarts.
    """
    rising = round(steps * settings.warmup)
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    fraction = (step - rising) / max(steps - rising, 1)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * fraction))


def epochs_in_time(done: int, planned: int, used_seconds: float, left_seconds: float) -> int:
    """Return how many epochs to plan for, after `done` of them took `used_seconds`, at most `planned`.

    A tenth of what is left is kept for what comes after training. The learning rate follows the plan, so that
    it has come down to zero when the time is up.
    """
    if done >= planned or not math.isfinite(left_seconds):
        return planned
    fitting = int(0.9 * max(left_seconds, 0.0) * done / max(used_seconds, 1e-9))
    return min(planned, done + max(fitting, 0))
