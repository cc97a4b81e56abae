"""The table of all metrics for a report: a row for each metric, a column for each system."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from job.evaluation.bootstrap import Interval
from job.evaluation.metrics.metric import BY_REFERENCE, Metric
from job.evaluation.result import (
    Evaluation,
    best_score,
    mean_score,
    metric_title,
    shown_value,
)

ARROWS = {
    "higher": ("↑", "higher is better"),
    "lower": ("↓", "lower is better"),
    "neither": ("", "neither direction is better"),
}
AGGREGATION_TITLES = {
    "first": "against the first reference",
    "mean": "mean over the references",
    "best": "against the best reference",
}


@dataclass(frozen=True)
class Cell:
    """A system's score as text, empty if it has none."""

    system: str
    text: str = ""
    bounds: str = ""
    is_best: bool = False
    is_judged: bool = False


@dataclass(frozen=True)
class Row:
    """A metric with every system's score. `arrow` and `direction` say which values are better."""

    title: str
    arrow: str
    direction: str
    is_guard: bool
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Column:
    """A system; `note` says what it is."""

    name: str
    note: str
    is_judged: bool


def columns(evaluation: Evaluation) -> list[Column]:
    """Return the systems in the order of the evaluation: the judged one first, floors, people."""
    notes = {"floor": "floor", "human": "people", "champion": "serves now", "judged": "judged"}
    found = []
    for name, system in evaluation.systems.items():
        is_judged = name == evaluation.judged
        found.append(Column(name, notes.get(system.kind, ""), is_judged))
    return found


def score_rows(
    evaluation: Evaluation, metrics: Sequence[Metric], guards: Collection[str] = ()
) -> list[Row]:
    """Return a row for each metric, then one for the words and the sameness of summaries."""
    rows = []
    for metric in metrics:
        best = _single_best(evaluation, metric)
        cells = []
        for name in evaluation.systems:
            cells.append(
                _cell(evaluation, name, mean_score(evaluation, name, metric), metric, best)
            )
        title = metric_title(evaluation, metric)
        rows.append(_row(title, metric, cells, metric.name in guards))

    lengths, same = [], []
    for name, system in evaluation.systems.items():
        is_judged = name == evaluation.judged
        words = system.words
        bounds = f"{words.p10:.0f} to {words.p90:.0f}"
        lengths.append(Cell(name, f"{words.mean:.1f}", bounds, is_judged=is_judged))
        same.append(Cell(name, f"{system.most_common_share:.1%}", is_judged=is_judged))
    rows.append(Row("Words (10th to 90th percentile)", "", "", False, lengths))
    rows.append(Row("Share of the most common summary", "", "", False, same))
    return rows


def aggregation_rows(evaluation: Evaluation, metrics: Sequence[Metric]) -> list[Row]:
    """Return the metrics that compare with references by each way to join several references."""
    rows = []
    for metric in metrics:
        for aggregation in BY_REFERENCE if metric.aggregations == BY_REFERENCE else ():
            cells = []
            for name, system in evaluation.systems.items():
                score = system.scores.get(metric.name, {}).get(aggregation)
                cells.append(_cell(evaluation, name, score, metric))
            title = f"{metric_title(evaluation, metric)}, {AGGREGATION_TITLES[aggregation]}"
            rows.append(_row(title, metric, cells))
    return rows


def _single_best(evaluation: Evaluation, metric: Metric) -> float | None:
    """Return the best score, None if several systems share it or only one was scored."""
    best = best_score(evaluation, metric)
    scores = [mean_score(evaluation, name, metric) for name in evaluation.systems]
    means = [score.mean for score in scores if score]
    return best if len(means) > 1 and best is not None and means.count(best) == 1 else None


def _row(title: str, metric: Metric, cells: Sequence[Cell], is_guard: bool = False) -> Row:
    arrow, direction = ARROWS[metric.direction]
    return Row(title, arrow, direction, is_guard, cells)


def _cell(
    evaluation: Evaluation,
    name: str,
    score: Interval | None,
    metric: Metric,
    best: float | None = None,
) -> Cell:
    is_judged = name == evaluation.judged
    if score is None:
        return Cell(name, is_judged=is_judged)
    low, high = (shown_value(bound, metric) for bound in (score.low, score.high))
    bounds = f"{low} to {high}" if score.is_known else ""
    # People are not in the race.
    is_best = score.mean == best and evaluation.systems[name].kind != "human"
    return Cell(name, shown_value(score.mean, metric), bounds, is_best, is_judged)
