"""How sparse a network is after each round of pruning and retraining."""

from typing import Final

from flyweight.compressor.errors import RecipeError

MOST_ROUNDS: Final = 1000


def cubic_at(part: float, final: float = 1.0, initial: float = 0.0) -> float:
    """Return the sparsity when `part` of the pruning's time is over, from 0 to 1.

    s_f + (s_i - s_f) (1 - part)^3: Zhu and Gupta 2017, "To prune, or not to prune", equation 1. Much goes
    while there is much to spare, little at the end.
    """
    return final + (initial - final) * (1.0 - part) ** 3


def cubic_schedule(final: float, rounds: int, initial: float = 0.0) -> tuple[float, ...]:
    """Return the sparsity after each of `rounds` rounds; one round is one shot.

    s_t = `cubic_at`(t / n), t = 1 ... n: Zhu and Gupta's equation 1 with t0 = 0 and steps of one.
    """
    return tuple(cubic_at(step / rounds, final, initial) for step in range(1, rounds + 1))


def require_ratio(ratio: float) -> None:
    """Check a fraction of what is removed.

    Raises:
        RecipeError: it is not at least 0 and below 1.
    """
    if not 0.0 <= ratio < 1.0:
        raise RecipeError(f"A pruning ratio is at least 0 and below 1, and {ratio} is not.")


def require_rounds(rounds: int) -> None:
    """Check a number of rounds.

    Raises:
        RecipeError: it is not from 1 to 1000.
    """
    if not 1 <= rounds <= MOST_ROUNDS:
        raise RecipeError(f"The number of pruning rounds is from 1 to {MOST_ROUNDS}, and {rounds} is not.")
