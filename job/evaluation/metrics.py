"""ROUGE of summaries against their references.

Purpose: the numbers that everyone compares with, from the reference implementation (`rouge_score`, Porter stemmer on),
one row per conversation. Summaries and references in, an array of F-measures out. Offline: sentences are split by a
regular expression, not by nltk's downloaded models. Knows nothing of systems, intervals or how a summary was made.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
AGGREGATIONS = ("first", "mean", "best")  # over the references of one conversation
METRIC_LABELS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\s*\n\s*")
_WORDS = re.compile(r"[a-z0-9]+")  # what rouge_score calls a word; other alphabets have none


@dataclass(frozen=True)
class Scores:
    """F-measures: float64 (conversations, metrics, aggregations), in the order of METRICS and AGGREGATIONS."""

    values: NDArray[np.float64]

    def of(self, metric: str, aggregation: str = "mean") -> NDArray[np.float64]:
        """One score for each conversation: (conversations,)."""
        return self.values[:, METRICS.index(metric), AGGREGATIONS.index(aggregation)]


def score_all(summaries: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Score each summary against all references of its conversation (at least one each); about 1 ms per pair.

    ROUGE-Lsum compares sentence by sentence. `best` takes the best reference for each metric by itself.
    """
    assert len(summaries) == len(references), (len(summaries), len(references))
    scorer = _scorer()
    values = np.zeros((len(summaries), len(METRICS), len(AGGREGATIONS)))
    for row, (summary, wanted) in enumerate(zip(summaries, references, strict=True)):
        assert wanted, f"conversation {row} has no reference"
        candidate = sentences(summary)
        pairs = [scorer.score(sentences(reference), candidate) for reference in wanted]
        scored = np.array([[pair[metric].fmeasure for metric in METRICS] for pair in pairs])  # (references, metrics)
        values[row] = np.stack([scored[0], scored.mean(axis=0), scored.max(axis=0)], axis=1)
    return Scores(values)


def sentences(text: str) -> str:
    """The text with one sentence a line, as ROUGE-Lsum wants it; the other metrics do not see the difference."""
    return "\n".join(part for part in _SENTENCE_END.split(text.strip()) if part)


def words(text: str) -> list[str]:
    """The words that ROUGE counts (lower case, a-z and 0-9), not stemmed."""
    return _WORDS.findall(text.lower())


class Stemmer:
    """rouge_score's tokenizer with a memory: stemming a word takes 20 times as long as looking it up."""

    def __init__(self) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._tokenize = DefaultTokenizer(use_stemmer=True).tokenize
        self._stems: dict[str, list[str]] = {}

    def tokenize(self, text: str) -> list[str]:
        """Stemmed words of the text."""
        return [stem for word in words(text) for stem in self._of(word)]

    def _of(self, word: str) -> list[str]:
        if word not in self._stems:
            self._stems[word] = self._tokenize(word)
        return self._stems[word]


def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(METRICS), tokenizer=Stemmer())
