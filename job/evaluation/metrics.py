"""ROUGE of summaries against their references, one row per conversation.

The counting is the reference implementation's (`rouge_score`), the words are those of `words`.
Works offline: a regular expression splits sentences, where nltk would download models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

from job.evaluation.words import RougeTokenizer

METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
AGGREGATIONS = ("first", "mean", "best")  # over the references of one conversation
METRIC_LABELS = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
}

# A space must follow the marks of English, which stand in numbers and names too. The marks of other
# scripts (as in Chinese, Japanese, Arabic, Hindi, Burmese) end sentences and nothing else.
_OTHER_MARK = r"[\p{Sentence_Terminal}--[.!?\uff0e]]"
_SENTENCE_END = regex.compile(
    r"(?<=[.!?])[\"')\]]*\s+"
    rf"|(?<={_OTHER_MARK})(?!{_OTHER_MARK})[\p{{Pe}}\p{{Pf}}\"']*\s*"
    r"|\s*\n\s*",
    regex.V1,
)


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
        scored = np.array(
            [[pair[metric].fmeasure for metric in METRICS] for pair in pairs]
        )  # (references, metrics)
        values[row] = np.stack([scored[0], scored.mean(axis=0), scored.max(axis=0)], axis=1)
    return Scores(values)


def sentences(text: str) -> str:
    """The text with one sentence a line, as ROUGE-Lsum wants it; the other metrics do not see the difference."""
    return "\n".join(part for part in _SENTENCE_END.split(text.strip()) if part)


def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(METRICS), tokenizer=RougeTokenizer())
