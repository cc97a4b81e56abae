"""The metrics that compare a summary with a reference, and the scores of a system by all of them.

To add a metric:

1. Write a function of (summary, reference) that returns a number, higher for a better summary,
   and 0 for one without a word: that of a failed conversation is empty. By convention the scale is
   0 to 1. Import a heavy library inside the function.
2. Add a `Metric` to `METRICS`. Scores, intervals, evaluation.json, the report and the model card
   have a column for each. The terminal's table and the demo's last screen have as many as fit, by
   `first_metrics`.
3. Add the library that computes it to `LIBRARIES`, since each evaluation records their versions,
   and to pyproject.toml and the locks (`make lock`, `make image-locks`).
4. Texts that explain ROUGE today: `MEASURE` (the table's caption and the report's row Score), the
   rows Score and Limits of `report._method`, the caption of the report's chart, `card.FLOORS`,
   `card.LIMITS`, and the tokenizer that the card names.

`HEADLINE` is the metric that ranks systems and decides who beats whom. The constant sentence is
chosen by ROUGE-L whatever it is: `floors.py` has a fast function of its own for that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

from job.evaluation.words import RougeTokenizer

# A space must follow the marks of English, which stand in numbers and names too. The marks of other
# scripts (as in Chinese, Japanese, Arabic, Hindi, Burmese) end sentences and nothing else.
_OTHER_MARK = r"[\p{Sentence_Terminal}--[.!?\uff0e]]"
_SENTENCE_END = regex.compile(
    r"(?<=[.!?])[\"')\]]*\s+"
    rf"|(?<={_OTHER_MARK})(?!{_OTHER_MARK})[\p{{Pe}}\p{{Pf}}\"']*\s*"
    r"|\s*\n\s*",
    regex.V1,
)


def rouge(name: str, summary: str, reference: str) -> float:
    """Return the F-measure of one of `rouge_score`'s metrics, on the words of `words.py`.

    The first metric of a pair counts them all: about 4 ms for two texts of 40 words.
    """
    return float(_all_rouge(summary, reference)[name].fmeasure)


@dataclass(frozen=True)
class Metric:
    """A number for a summary beside a reference; higher is better.

    `name` is its key in evaluation.json, `title` its column in reports, and `short_title` its
    column in the terminal's table. `hub_type` is the metric's id on the Hugging Face Hub, for the
    front matter of a model card; repeat `name` if the Hub lists no such metric.
    """

    name: str
    title: str
    short_title: str
    hub_type: str
    score: Callable[[str, str], float]  # of (summary, reference)


ROUGE_1 = Metric("rouge1", "ROUGE-1", "R-1", "rouge", partial(rouge, "rouge1"))
ROUGE_2 = Metric("rouge2", "ROUGE-2", "R-2", "rouge", partial(rouge, "rouge2"))
ROUGE_L = Metric("rougeL", "ROUGE-L", "R-L", "rouge", partial(rouge, "rougeL"))
ROUGE_LSUM = Metric("rougeLsum", "ROUGE-Lsum", "R-Lsum", "rouge", partial(rouge, "rougeLsum"))

METRICS = (ROUGE_1, ROUGE_2, ROUGE_L, ROUGE_LSUM)
HEADLINE = ROUGE_L
MEASURE = "ROUGE F-measure"  # of all metrics together, in captions
LIBRARIES = ("rouge-score", "regex", "numpy")

AGGREGATIONS = ("first", "mean", "best")  # over the references of one conversation


def first_metrics(
    count: int,
    metrics: tuple[Metric, ...] = METRICS,
    headline: Metric = HEADLINE,
) -> tuple[Metric, ...]:
    """Return the first `count` metrics; the headline is the last of them if it comes later."""
    first = metrics[:count]
    return first if headline in first else (*first[:-1], headline)


@dataclass(frozen=True)
class Scores:
    """The scores of a system: float64 of shape (conversations, metrics, aggregations).

    In the order of `metrics` and AGGREGATIONS.
    """

    values: NDArray[np.float64]
    metrics: tuple[Metric, ...] = METRICS

    def of(self, name: str, aggregation: str = "mean") -> NDArray[np.float64]:
        """Return the scores by one metric, of shape (conversations,)."""
        names = [metric.name for metric in self.metrics]
        return self.values[:, names.index(name), AGGREGATIONS.index(aggregation)]


def score_all(
    summaries: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: tuple[Metric, ...] = METRICS,
) -> Scores:
    """Score each summary against all references of its conversation, of which it has at least one.

    `best` is the best reference by each metric for itself.
    """
    assert len(summaries) == len(references), (len(summaries), len(references))
    values = np.zeros((len(summaries), len(metrics), len(AGGREGATIONS)))
    for row, (summary, texts) in enumerate(zip(summaries, references, strict=True)):
        assert texts, f"conversation {row} has no reference"
        scored = np.array([[metric.score(summary, text) for metric in metrics] for text in texts])
        values[row, :, 0] = scored[0]
        values[row, :, 1] = scored.mean(axis=0)
        values[row, :, 2] = scored.max(axis=0)
    return Scores(values, metrics)


def sentences(text: str) -> str:
    """Return the text with one sentence a line, as ROUGE-Lsum compares them.

    By a regular expression: nltk would download models. The other metrics do not see the lines.
    """
    return "\n".join(part for part in _SENTENCE_END.split(text.strip()) if part)


# The metrics of a pair are asked for one after the other, and `rouge_score` counts the words of the
# pair once for all of them.
@lru_cache(maxsize=1)
def _all_rouge(summary: str, reference: str) -> Any:
    return _rouge_scorer().score(sentences(reference), sentences(summary))


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    return RougeScorer(names, tokenizer=RougeTokenizer())
