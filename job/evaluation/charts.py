"""The charts of a report: curves of a training, scores with intervals, lengths of summaries."""

from collections.abc import Mapping, Sequence

from job.evaluation.bootstrap import Interval
from job.evaluation.metrics.all_metrics import METRICS
from job.evaluation.metrics.metric import Metric
from job.evaluation.result import Evaluation, mean_difference, mean_score, metric_title, verdict
from job.evaluation.selection import SelectionCurve
from job.evaluation.systems import Scored
from job.evaluation.words import length
from job.pages.charts import (
    Curve,
    Group,
    Histograms,
    IntervalPlot,
    LineChart,
    Spread,
    histograms,
    interval_plot,
    line_chart,
)

# Rows with `step` and what was measured there, by the trainer's names.
History = Sequence[Mapping[str, float]]

# Title, whether the axis begins at 0, and the lines: the trainer's name, and a name for people.
CURVES = (
    ("Loss (nats per token)", False, {"loss": "training", "eval_loss": "validation"}),
    ("Learning rate", True, {"learning_rate": "learning rate"}),
    ("Gradient norm", True, {"grad_norm": "gradient norm"}),
    ("Tokens per second", True, {"tokens_per_second": "tokens per second"}),
    ("Largest memory (GiB)", True, {"memory_gib": "memory"}),
)

# Colours of differences.
OUTCOMES: Mapping[str, str] = {"beats": "ahead", "loses to": "behind"}


def training_charts(history: History) -> list[LineChart]:
    """Return the curves of a training, without those of which nothing was measured."""
    charts = []
    for title, is_from_zero, names in CURVES:
        curves = []
        for name, shown in names.items():
            points = [(row["step"], row[name]) for row in history if name in row]
            is_beside = name == "loss" and any("eval_loss" in row for row in history)
            curves.append(Curve(shown, points, "quiet" if is_beside else "judged"))
        id = f"curve-{next(iter(names))}"
        charts.append(line_chart(id, title, curves, "optimizer steps", is_from_zero))
    return [chart for chart in charts if chart is not None]


def measured_metrics(evaluation: Evaluation) -> list[Metric]:
    """Return the metrics by which the judged system has a score, in the order of tables."""
    return [metric for metric in METRICS if mean_score(evaluation, evaluation.judged, metric)]


def score_plot(evaluation: Evaluation, metric: Metric) -> IntervalPlot:
    """Return all systems' scores by a metric, the best first."""
    spreads = []
    for name, system in evaluation.systems.items():
        score = mean_score(evaluation, name, metric)
        if score:
            kind = "judged" if name == evaluation.judged else system.kind
            spreads.append(_spread(name, score, kind))
    sign = 1 if metric.direction == "lower" else -1
    spreads.sort(key=lambda spread: sign * spread.mean)
    return interval_plot(f"score-{metric.name}", metric_title(evaluation, metric), spreads)


def difference_plot(evaluation: Evaluation, metric: Metric) -> IntervalPlot | None:
    """Return the judged system's score minus each other one's, None if it is alone.

    An interval on one side of 0 has the colour of who is better.
    """
    spreads = []
    for name in evaluation.differences:
        by = mean_difference(evaluation, name, metric)
        if by:
            kind = OUTCOMES.get(verdict(evaluation, name, metric), "other")
            if metric.direction == "neither":
                kind = "other"
            spreads.append(_spread(name, by, kind))
    if not spreads:
        return None
    title = f"{metric_title(evaluation, metric)}: {evaluation.judged} minus the other"
    return interval_plot(f"difference-{metric.name}", title, spreads, has_zero=True)


def selection_plot(selection: SelectionCurve) -> IntervalPlot | None:
    """Return the candidates' scores by step, the chosen one marked; None if none has a score."""
    spreads = []
    for candidate in selection.candidates:
        if candidate.score:
            name = f"step {candidate.step:,}"
            kind = "judged" if candidate.step == selection.chosen else "other"
            spreads.append(_spread(name, candidate.score, kind))
    if not spreads:
        return None
    title = f"{selection.metric_title} of each candidate"
    return interval_plot("selection-plot", title, spreads)


def _spread(name: str, score: Interval, kind: str) -> Spread:
    return Spread(name, score.mean, score.low, score.high, kind, score.is_known)


def length_chart(scored: Scored) -> Histograms | None:
    """Return the lengths of the references and of each system's summaries, without the floors'."""
    references = [text for conversation in scored.conversations for text in conversation.references]
    groups = [Group("references", [length(text) for text in references], "reference")]
    for system in scored.systems:
        if system.kind not in ("floor", "human"):
            kind = "judged" if system.kind == "judged" else "other"
            groups.append(Group(system.name, [length(text) for text in system.summaries], kind))
    return histograms("lengths-chart", "Words per summary", groups, "words")
