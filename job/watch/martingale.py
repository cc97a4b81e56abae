"""An anytime-valid test of one figure over the nights: a conformal test martingale by weekday.

Each night's figure is ranked among those of the same weekday so far, which gives a p-value; a
capital of 1 bets against these p-values. While the nights of a weekday are exchangeable, the
p-values are independent and uniform, so the capital is a martingale: by Ville's inequality it ever
reaches 1/alpha with a probability of at most alpha, over any number of nights. No distribution is
assumed, and weekdays may differ in every way.

p-values: V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World" (2nd ed.,
2022), smoothed and conditional on categories (Mondrian). Bets: V. Vovk et al., "Retrain or not
retrain: conformal test martingales for change-point detection" (2021): capital that jumps between
bets, some of which wait.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from hashlib import blake2b
from typing import NamedTuple

# Shares of the smallest or largest p-values on which capital bets. A tail of 1/8 is sure to be hit
# only with seven nights before on the same weekday; wider ones win less, and sooner.
TAILS = (1 / 2, 1 / 4, 1 / 8)
STAKE = 0.9  # of a bet; the rest survives a night that is lost
JUMP = 0.01  # share of all capital that is distributed anew each night
BETS = 1 + 2 * len(TAILS)  # the first one waits


class Observation(NamedTuple):
    """A figure of one night: its mean, and the standard error of that."""

    day: date
    mean: float
    error: float


def capitals(name: str, observations: Sequence[Observation]) -> list[float]:
    """Return the capital after each night, in the order of the days; 1 is where it begins.

    `name` is that of the figure.
    """
    return capital_of(p_values(name, observations))


def p_values(name: str, observations: Sequence[Observation]) -> list[float]:
    """Return the conformal p-value of each night among the nights of its weekday so far.

    It is near 0 for the smallest figure and near 1 for the largest. Ties are broken by a number
    that depends on the name of the figure and the day alone, so that a repetition gives the same.
    """
    before: defaultdict[int, list[Observation]] = defaultdict(list)
    found = []
    for observation in observations:
        group = before[observation.day.weekday()]
        group.append(observation)
        scores = _scores(group)
        last = scores[-1]
        smaller = sum([score < last for score in scores])
        equal = scores.count(last)
        found.append((smaller + _uniform(name, observation.day) * equal) / len(group))
    return found


def capital_of(p_values: Sequence[float]) -> list[float]:
    """Return the capital after each p-value of a sequence that is uniform if nothing changed."""
    capital = [1 / BETS] * BETS
    found = []
    for p in p_values:
        anew = JUMP * sum(capital) / BETS
        factors = _factors(p)
        capital = [
            ((1 - JUMP) * part + anew) * factor
            for part, factor in zip(capital, factors, strict=True)
        ]
        found.append(sum(capital))
    return found


def _factors(p: float) -> list[float]:
    """Return what one night makes of a unit of each bet: 1 on average for a uniform p-value."""
    factors = [1.0]
    for tail in TAILS:
        won = 1 - STAKE + STAKE / tail
        lost = 1 - STAKE
        factors.append(won if p <= tail else lost)
        factors.append(won if p >= 1 - tail else lost)
    return factors


def _scores(group: Sequence[Observation]) -> list[float]:
    """Return the distance of each mean from that of all, in units of its own spread.

    A night of few records varies more. Symmetric in the nights, as a conformal score must be.
    """
    count = len(group)
    center = math.fsum([night.mean for night in group]) / count
    variance = math.fsum([(night.mean - center) ** 2 for night in group]) / count
    within = math.fsum([night.error**2 for night in group]) / count
    between = max(variance - within, 0.0)
    scores = []
    for night in group:
        spread = math.sqrt(between + night.error**2)
        # Figures that differ by rounding alone are ties.
        scores.append(round((night.mean - center) / spread, 9) if spread > 0 else 0.0)
    return scores


def _uniform(name: str, day: date) -> float:
    digest = blake2b(f"{name} {day.isoformat()}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) + 0.5) / 2**64
