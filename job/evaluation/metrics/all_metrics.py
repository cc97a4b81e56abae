"""The list of metrics, in the order in which tables show them. Nothing else names them."""

from collections.abc import Collection

from job.evaluation.metrics import chrf, copying, form, invented, rouge, speakers
from job.evaluation.metrics.bertscore import BERTSCORE
from job.evaluation.metrics.faithfulness import FAITHFULNESS
from job.evaluation.metrics.metric import Metric
from job.evaluation.metrics.reward import REWARD

METRICS: tuple[Metric, ...] = (
    rouge.ROUGE_1,
    rouge.ROUGE_2,
    rouge.ROUGE_L,
    FAITHFULNESS,
    REWARD,
    *chrf.METRICS,
    BERTSCORE,
    rouge.ROUGE_LSUM,
    *form.METRICS,
    *copying.METRICS,
    *invented.METRICS,
    *speakers.METRICS,
)

# Ranks systems and decides who beats whom. The constant sentence is chosen by ROUGE-L whatever it
# is: `floors.py` has a fast function of its own for that.
HEADLINE = rouge.ROUGE_L


def metric_named(name: str) -> Metric | None:
    """Return the metric of this name, if there is one."""
    return next((metric for metric in METRICS if metric.name == name), None)


def title_of(name: str) -> str:
    """Return the title of the metric of this name, without what is known of its model."""
    metric = metric_named(name)
    return metric.title.split(" (")[0] if metric else name


def available_metrics(models: Collection[str]) -> tuple[Metric, ...]:
    """Return the metrics that can be measured if those named in `models` have their model."""
    return tuple(
        metric for metric in METRICS if "model" not in metric.needs or metric.name in models
    )


def quality_metrics(models: Collection[str] = ()) -> tuple[Metric, ...]:
    """Return the available metrics that are scores: the columns of a score table."""
    return tuple(metric for metric in available_metrics(models) if metric.unit == "score")


def first_metrics(
    count: int,
    metrics: tuple[Metric, ...] | None = None,
    headline: Metric = HEADLINE,
) -> tuple[Metric, ...]:
    """Return the first `count` of `quality_metrics`, or of `metrics`.

    The headline is the last of them if it comes later.
    """
    metrics = quality_metrics() if metrics is None else metrics
    first = metrics[:count]
    return first if headline in first else (*first[:-1], headline)
