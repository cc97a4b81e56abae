"""The form of a summary: signs of a model that fails, which need no reference."""

from job.evaluation.metrics.metric import Metric, each

EMPTY = Metric(
    name="empty",
    title="Empty",
    short_title="empty",
    hub_type="empty",
    direction="lower",
    low=0,
    high=1,
    unit="share",
    needs=(),
    about="Share of summaries without any text.",
    measure=each(lambda sample: float(not sample.summary.strip())),
)
METRICS = (EMPTY,)
