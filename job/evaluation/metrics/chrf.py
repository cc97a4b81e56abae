"""chrF: the character n-grams that a summary shares with a reference, by `sacrebleu`.

It needs no words, so it serves languages without spaces and languages with many endings.
"""

from functools import cache
from typing import Any

from job.evaluation.metrics.metric import Metric, Sample, each


def chrf(sample: Sample) -> float:
    """Return sacrebleu's chrF2 of one pair, from 0 to 1."""
    return float(_scorer().sentence_score(sample.summary, [sample.references[0]]).score) / 100


@cache
def _scorer() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


CHRF = Metric(
    name="chrf",
    title="chrF",
    short_title="chrF",
    hub_type="chrf",
    direction="higher",
    low=0,
    high=1,
    unit="score",
    needs=("reference",),
    about="F-measure of the sequences of 1 to 6 characters that summary and reference share; "
    "recall counts twice.",
    measure=each(chrf),
    libraries=("sacrebleu",),
)
METRICS = (CHRF,)
