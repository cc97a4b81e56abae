"""A metric: a number for a summary, and all that a reader or a table needs to know of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from job.conversations.record import Conversation
from job.evaluation.metrics.models import MetricModel

Direction = Literal["higher", "lower", "neither"]
Unit = Literal["score", "share", "ratio", "count"]
# "reference": each reference on its own; "references": all of them together.
Need = Literal["reference", "references", "conversation", "finish_reason", "model"]
Aggregation = Literal["first", "mean", "best"]

BY_REFERENCE: tuple[Aggregation, ...] = ("first", "mean", "best")
BY_SUMMARY: tuple[Aggregation, ...] = ("mean",)


@dataclass(frozen=True)
class Sample:
    """A summary to measure, and what it can be measured against.

    A metric that needs "reference" gets exactly one in `references`, and a sample for each.
    `finish_reason` is "stop", "length", or None if nobody knows.
    """

    summary: str
    conversation: Conversation
    references: tuple[str, ...] = ()
    finish_reason: str | None = None


# Returns a number for each sample, NaN where it has none. The model is None for a metric that needs
# none.
Measure = Callable[[Sequence[Sample], MetricModel | None], NDArray[np.float64]]


@dataclass(frozen=True)
class Metric:
    """A metric.

    `name` is its key in evaluation.json, `title` its column in reports, `short_title` its column in
    the terminal's table, `about` one sentence for people. `hub_type` is the metric's id on the
    Hugging Face Hub, for the front matter of a model card; repeat `name` if the Hub lists no such
    metric. `direction` says which values are better; `low` and `high` are its range. An evaluation
    records the versions of `libraries`. `finds` returns the parts of a summary that the metric
    counts against it, which a report highlights. `no_value_where` completes the sentence "it has no
    value where", of a metric that cannot measure every text.
    """

    name: str
    title: str
    short_title: str
    hub_type: str
    direction: Direction
    low: float
    high: float
    unit: Unit
    needs: tuple[Need, ...]
    about: str
    measure: Measure
    libraries: tuple[str, ...] = ()
    finds: Callable[[Sample], Sequence[str]] | None = None
    no_value_where: str = ""

    @property
    def aggregations(self) -> tuple[Aggregation, ...]:
        """Return the ways in which the scores of one conversation become one."""
        return BY_REFERENCE if "reference" in self.needs else BY_SUMMARY

    def scores(
        self, samples: Sequence[Sample], model: MetricModel | None = None
    ) -> NDArray[np.float64]:
        """Return a number for each sample, NaN where it has none.

        Called once for all systems of an evaluation, so that a model is loaded once.
        """
        values = self.measure(samples, model)
        assert values.shape == (len(samples),), (self.name, values.shape, len(samples))
        return values


def each(score: Callable[[Sample], float | None]) -> Measure:
    """Return the measure that calls `score` for each sample; None becomes NaN."""

    def measure(samples: Sequence[Sample], _: MetricModel | None) -> NDArray[np.float64]:
        scores = [score(sample) for sample in samples]
        return np.array([np.nan if value is None else value for value in scores], dtype=np.float64)

    return measure


def share_of_summaries(
    name: str,
    title: str,
    short_title: str,
    about: str,
    needs: tuple[Need, ...],
    has_fault: Callable[[Sample], float | None],
    finds: Callable[[Sample], Sequence[str]] | None = None,
) -> Metric:
    """Return the metric of a fault: 1 for a summary that has it, 0 for one that has not.

    `about` follows "Share of summaries".
    """
    return Metric(
        name=name,
        title=title,
        short_title=short_title,
        hub_type=name,
        direction="lower",
        low=0,
        high=1,
        unit="share",
        needs=needs,
        about=f"Share of summaries {about}",
        measure=each(has_fault),
        libraries=("regex",),
        finds=finds,
    )
