"""The scores of systems by metrics: one number for a conversation, metric and aggregation.

A system has one summary of a conversation. The human references are judged by leave-one-out: each
is a summary that is compared with the others, and a conversation's score is their mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from job.conversations.record import Conversation
from job.evaluation.metrics.metric import Metric, Sample
from job.evaluation.metrics.models import MetricModel
from job.evaluation.systems import System


@dataclass(frozen=True)
class Scores:
    """The scores of a system by one metric, NaN where a conversation has none.

    `values` has shape (conversations, aggregations of the metric). `best_of_fewer` is the best over
    all references but one, the mean over which one, as human references have one reference fewer:
    more references have a better best.
    """

    values: NDArray[np.float64]
    best_of_fewer: NDArray[np.float64]  # (conversations,); NaN for a metric without references

    def of(self, metric: Metric, aggregation: str = "mean") -> NDArray[np.float64]:
        """Return the scores by one aggregation, of shape (conversations,)."""
        return self.values[:, metric.aggregations.index(aggregation)]


@dataclass(frozen=True)
class _Attempt:
    """One summary of one conversation. `left_out` is the reference that it is itself."""

    row: int
    sample: Sample
    left_out: int | None = None

    def references(self) -> list[tuple[int, str]]:
        """Return number and text of the references that it is compared with."""
        numbered = enumerate(self.sample.conversation.references)
        return [(number, text) for number, text in numbered if number != self.left_out]


def score_systems(
    systems: Sequence[System],
    conversations: Sequence[Conversation],
    metrics: Sequence[Metric],
    models: Mapping[str, MetricModel],
) -> dict[str, dict[str, Scores]]:
    """Return scores by system and metric. Each conversation has at least one reference.

    `models` are by metric. A metric is asked once for all systems.
    """
    attempts = {system.name: _attempts(system, conversations) for system in systems}
    found: dict[str, dict[str, Scores]] = {name: {} for name in attempts}
    for metric in metrics:
        samples = {name: _samples(own, metric) for name, own in attempts.items()}
        together = [sample for own in samples.values() for sample in own]
        values = metric.scores(together, models.get(metric.name))
        start = 0
        for name, own in samples.items():
            end = start + len(own)
            found[name][metric.name] = _collect(
                attempts[name], values[start:end], metric, len(conversations)
            )
            start = end
    return found


def _attempts(system: System, conversations: Sequence[Conversation]) -> list[_Attempt]:
    attempts = []
    for row, conversation in enumerate(conversations):
        if system.kind == "human":
            for number, text in enumerate(conversation.references):
                others = conversation.references[:number] + conversation.references[number + 1 :]
                attempts.append(_Attempt(row, Sample(text, conversation, others), number))
            continue
        attempts.append(_Attempt(row, system.sample(row, conversation)))
    return attempts


def _samples(attempts: Sequence[_Attempt], metric: Metric) -> list[Sample]:
    """Return what the metric is asked: each attempt, or each beside each of its references."""
    if "reference" not in metric.needs:
        return [attempt.sample for attempt in attempts]
    samples = []
    for attempt in attempts:
        given = attempt.sample
        for _, reference in attempt.references():
            samples.append(
                Sample(given.summary, given.conversation, (reference,), given.finish_reason)
            )
    return samples


def _collect(
    attempts: Sequence[_Attempt],
    values: NDArray[np.float64],
    metric: Metric,
    conversations: int,
) -> Scores:
    """Return the scores by conversation of the attempts' values, in the order of `_samples`."""
    columns = len(metric.aggregations) + 1  # the last one is the best of fewer
    collected: list[list[list[float]]] = [[] for _ in range(conversations)]
    start = 0
    for attempt in attempts:
        if "reference" not in metric.needs:
            collected[attempt.row].append([float(values[start]), np.nan])
            start += 1
            continue
        references = attempt.references()
        own = values[start : start + len(references)]
        start += len(references)
        if references:
            collected[attempt.row].append(_aggregate(references, own, attempt.left_out is not None))

    scores = np.full((conversations, columns), np.nan)
    for row, found in enumerate(collected):
        if found:
            scores[row] = _mean_of_present(np.array(found))
    return Scores(scores[:, :-1], scores[:, -1])


def _aggregate(
    references: Sequence[tuple[int, str]], values: NDArray[np.float64], is_human: bool
) -> list[float]:
    """Return first, mean and best of the scores by reference, and the best of one fewer."""
    best = float(values.max())
    first = float(values[0]) if references[0][0] == 0 else np.nan
    if is_human:
        fewer = best  # one reference is left out already
    elif len(values) == 1:
        fewer = np.nan
    else:
        # Without the best one, the best is the second; without any other, it stays.
        second = float(np.sort(values)[-2])
        fewer = (best * (len(values) - 1) + second) / len(values)
    return [first, float(values.mean()), best, fewer]


def _mean_of_present(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    present = ~np.isnan(rows)
    counts = present.sum(axis=0)
    totals = np.where(present, rows, 0.0).sum(axis=0)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
