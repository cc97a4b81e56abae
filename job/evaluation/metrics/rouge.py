"""ROUGE: the words that a summary shares with a reference, by `rouge_score`."""

from functools import cache, lru_cache
from typing import Any

from job.evaluation.metrics.metric import Metric, each
from job.evaluation.metrics.sentences import sentences
from job.evaluation.words import RougeTokenizer


def rouge(name: str, summary: str, reference: str) -> float:
    """Return the F-measure of one of `rouge_score`'s metrics, on the words of `words.py`."""
    return _all_rouge(summary, reference)[name]


def _metric(name: str, title: str, short_title: str, about: str) -> Metric:
    return Metric(
        name=name,
        title=title,
        short_title=short_title,
        hub_type="rouge",
        direction="higher",
        low=0,
        high=1,
        unit="score",
        needs=("reference",),
        about=f"F-measure of {about} that summary and reference share.",
        measure=each(lambda sample: rouge(name, sample.summary, sample.references[0])),
        libraries=("rouge-score", "regex", "numpy"),
    )


ROUGE_1 = _metric("rouge1", "ROUGE-1", "R-1", "the words")
ROUGE_2 = _metric("rouge2", "ROUGE-2", "R-2", "the pairs of words")
ROUGE_L = _metric("rougeL", "ROUGE-L", "R-L", "the longest sequence of words in order")
ROUGE_LSUM = _metric(
    "rougeLsum", "ROUGE-Lsum", "R-Lsum", "the longest sequences of words by sentence"
)
METRICS = (ROUGE_1, ROUGE_2, ROUGE_L, ROUGE_LSUM)


# `rouge_score` counts the words of a pair once for all four: about 4 ms for two texts of 40 words.
# The cache holds the pairs of one evaluation, whose metrics are measured one after the other.
@lru_cache(maxsize=1 << 18)
def _all_rouge(summary: str, reference: str) -> dict[str, float]:
    # ROUGE-Lsum compares line by line; the others do not see the lines.
    reference, summary = ("\n".join(sentences(text)) for text in (reference, summary))
    scores = _rouge_scorer().score(reference, summary)
    return {name: float(score.fmeasure) for name, score in scores.items()}


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    return RougeScorer(names, tokenizer=RougeTokenizer())
