"""The choice of a variant: a pure function of the plan, the caller's key and one random number.

A request with a key goes where weighted rendezvous hashing sends it (Thaler and Ravishankar 1998; the
logarithmic weights are those of Schindelhauer and Schomaker 2005, "Weighted Distributed Hash Tables"):

    u(key, v) = (h + 0.5) / 2^53,  h = the upper 53 bits of BLAKE2b-64(v's name, a zero byte, key)
    score(v)  = -weight(v) / ln u(key, v)
    answer    = the v with the highest score

Every -ln u is exponentially distributed with rate 1, so v wins with probability weight(v) / sum of weights.
A change of weights moves a key from a to b only if b's weight grew by a larger factor than a's. Between two
variants, or when one variant's share changes at the proportionate cost of the others, the part of the keys
that moves is exactly the part of the traffic that has to (the total variation distance d between the plans);
for any other change it is at most 2d/(1+d) (Bavarian et al. 2016, "On the optimality of correlated sampling
strategies"). No state is kept: every replica sends a key to the same variant.
"""

import math
from hashlib import blake2b
from typing import Final, NamedTuple

from flyweight.server.traffic.plan import Plan, Reason, Role

# As many bits as a float's significand has, so that u is exact and strictly between 0 and 1.
_BITS: Final = 53


# Each look at a member of an enumeration takes as long as the rest of a choice.
_BASELINE: Final = Role.BASELINE
_SPLIT: Final = Reason.SPLIT


class Choice(NamedTuple):
    """Who answers, what it is to its model, and why it was chosen; `role` as the caller is told it."""

    variant: str
    role: Role
    reason: Reason


def choose(plan: Plan, key: bytes | None, uniform: float) -> Choice:
    """Choose a variant by weight.

    Args:
        plan: the model's plan.
        key: the caller's sticky key (see `sticky_key`); None when it sent none.
        uniform: a random number in [0, 1), used when there is no key.
    """
    if plan.origin is not _SPLIT:
        return Choice(plan.baseline, _BASELINE, plan.origin)
    if key is not None:
        variant = _by_key(plan, key)
        return Choice(variant, plan.role_of(variant), Reason.STICKY)
    variant = _by_weight(plan, uniform)
    return Choice(variant, plan.role_of(variant), Reason.SPLIT)


def pin(variant: str) -> Choice:
    """Return the choice of a caller who asked for `variant` by name."""
    return Choice(variant, Role.PINNED, Reason.PINNED)


def sticky_key(model: str, value: str | int) -> bytes:
    """Return the key to hash for a caller's `value`: the model's name, a zero byte, the value as text.

    With the model's name in it, the same user's choices for two models are independent, so one experiment
    does not colour the other. The number 7 and the text "7" are the same caller.
    """
    return b"%b\0%b" % (model.encode(), str(value).encode())


def _by_weight(plan: Plan, uniform: float) -> str:
    """Return the variant whose interval of the cumulated weights holds `uniform`."""
    reached, answer = 0.0, plan.baseline
    for variant, weight in plan.weights:
        if weight > 0:
            answer = variant
            reached += weight
            if uniform < reached:
                break
    # Past the end only by the weights' rounding: the last variant with a share takes it.
    return answer


def _by_key(plan: Plan, key: bytes) -> str:
    """Return the winner of the rendezvous; of equal scores, which 2^-53 makes rare, the first by name."""
    weighted = [(variant, weight) for variant, weight in plan.weights if weight > 0]
    return max(weighted, key=lambda item: item[1] / _exponential(item[0], key))[0]


def _exponential(variant: str, key: bytes) -> float:
    """Return -ln u(key, variant), a fixed draw from the exponential distribution with rate 1."""
    digest = blake2b(variant.encode() + b"\0" + key, digest_size=8).digest()
    fraction = ((int.from_bytes(digest, "big") >> (64 - _BITS)) + 0.5) / (1 << _BITS)
    return -math.log(fraction)
