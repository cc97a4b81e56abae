"""A challenger beside the adapter over the nights that tried it. It alarms nobody.

Each side is pooled over the nights. The interval of a difference is for one look: whoever looks
each night until something is outside will find it by chance.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Self

from job.summarization.identity import CHALLENGER
from job.summarization.quality import FIGURES, Figure
from job.watch.measured import Measured, figures_of

QUANTILE = 1.96  # of the normal distribution, for 95%
DIGITS = 12  # of a digest, for people


@dataclass(frozen=True)
class Tried:
    """The challenger of one night: what tells it from others, and the figures of both sides."""

    digest: str
    mode: str
    adapter: str | None  # digest of the adapter beside it
    figures: Mapping[str, Measured]
    beside: Mapping[str, Measured]

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self | None:
        """Return the challenger in a manifest; None without one, or if it took no part."""
        block = facts.get(CHALLENGER)
        if block is None or "beside" not in block:
            return None
        return cls(
            digest=str(block["digest"]),
            mode=str(block["mode"]),
            adapter=facts["identity"]["weights"]["adapter"],
            figures=figures_of(block["figures"]),
            beside=figures_of(block["beside"]["figures"]),
        )

    @property
    def is_canary(self) -> bool:
        """True if the challenger wrote some of the delivered lines."""
        return self.mode == "canary"

    def is_like(self, other: "Tried") -> bool:
        """Return True if the same two adapters were tried in the same way."""
        return (self.digest, self.mode, self.adapter) == (other.digest, other.mode, other.adapter)


@dataclass(frozen=True)
class Compared:
    """A figure of both sides over all nights, with the 95% interval of the difference."""

    figure: Figure
    adapter: Measured
    challenger: Measured
    low: float
    high: float

    @property
    def difference(self) -> float:
        """The challenger's mean minus the adapter's."""
        return self.challenger.mean - self.adapter.mean

    @property
    def is_outside(self) -> bool:
        """True if the interval does not include 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Trial:
    """The challenger that was tried last, over all nights that tried it so."""

    last: Tried
    days: Sequence[date]
    figures: Sequence[Compared]

    def title(self) -> str:
        """Return one line about who was tried, how, and when."""
        adapter = "the base alone" if self.last.adapter is None else self.last.adapter[:DIGITS]
        nights = "1 night" if len(self.days) == 1 else f"{len(self.days):,} nights"
        when = f"{nights} from {self.days[0]} to {self.days[-1]}"
        return f"challenger {self.last.digest[:DIGITS]} ({self.last.mode}) beside {adapter}, {when}"

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON."""
        figures = {}
        for each in self.figures:
            figures[each.figure.name] = {
                "adapter": {"records": each.adapter.records, "mean": each.adapter.mean},
                "challenger": {"records": each.challenger.records, "mean": each.challenger.mean},
                "difference": {"mean": each.difference, "low": each.low, "high": each.high},
            }
        return {
            "digest": self.last.digest,
            "mode": self.last.mode,
            "adapter": self.last.adapter,
            "nights": [day.isoformat() for day in self.days],
            "figures": figures,
        }


def find_trial(tried: Sequence[tuple[date, Tried | None]]) -> Trial | None:
    """Return the trial of the last challenger of these nights, None if no night had one."""
    found = [(day, each) for day, each in tried if each is not None]
    if not found:
        return None
    last = found[-1][1]
    same = [(day, each) for day, each in found if each.is_like(last)]
    figures = list(_compare([each for _, each in same]))
    return Trial(last, [day for day, _ in same], figures)


def _compare(nights: Sequence[Tried]) -> Iterator[Compared]:
    for figure in FIGURES:
        if figure.of != "output":
            continue
        adapter = _pool([night.beside.get(figure.name) for night in nights])
        challenger = _pool([night.figures.get(figure.name) for night in nights])
        if adapter is None or challenger is None:
            continue
        center, error = _difference(adapter, challenger, figure.is_share)
        margin = QUANTILE * error
        yield Compared(figure, adapter, challenger, center - margin, center + margin)


def _pool(measured: Sequence[Measured | None]) -> Measured | None:
    """Return a figure over the records of all nights; its spread is that within the nights."""
    found = [each for each in measured if each is not None and each.records]
    records = sum(each.records for each in found)
    if not records:
        return None
    mean = sum(each.records * each.mean for each in found) / records
    variance = sum(each.records * each.sd**2 for each in found) / records
    return Measured(records, mean, math.sqrt(variance))


def _difference(adapter: Measured, challenger: Measured, is_share: bool) -> tuple[float, float]:
    """Return the center of the interval of the difference, and its standard error.

    Shares have one more hit and one more miss on each side (Agresti and Caffo 2000), so that sides
    of a few equal values leave a doubt. In shadow the sides are of the same records, so the
    interval is too wide rather than too narrow.
    """
    if not is_share:
        return challenger.mean - adapter.mean, math.hypot(challenger.error, adapter.error)
    shares = []
    variances = []
    for side in (challenger, adapter):
        share = (side.records * side.mean + 1) / (side.records + 2)
        shares.append(share)
        variances.append(share * (1 - share) / (side.records + 2))
    return shares[0] - shares[1], math.sqrt(sum(variances))
