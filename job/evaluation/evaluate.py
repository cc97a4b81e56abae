"""Score systems and floors on the same references, to see if an adapter is worth using.

Summaries and conversations in, an `Evaluation` out: scores with intervals, and the paired
difference of the judged system to each other one.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from job.config.sections import ScoringSection
from job.conversations.record import Conversation
from job.conversations.references import why_missing
from job.errors import DataError
from job.evaluation.bootstrap import Interval, mean_intervals, paired_differences
from job.evaluation.floors import constant_sentence, lead, leave_one_out_sentences
from job.evaluation.metrics import AGGREGATIONS, LIBRARIES, Metric, Scores, score_all
from job.evaluation.result import CONSTANT, LEAD, Evaluation, Intervals, Lengths, SystemResult
from job.evaluation.words import TOKENIZER, has_letters, length

# Of the bootstrap, the floors' samples and the choice of conversations; recorded in the evaluation.
SEED = 0


@dataclass(frozen=True)
class _Floor:
    """A system that is added to each evaluation; `origin` says where its summaries come from."""

    name: str
    summaries: list[str]
    origin: str


def evaluate(
    systems: Mapping[str, Sequence[str]],
    conversations: Sequence[Conversation],
    options: ScoringSection,
    train_references: Sequence[str] | None,
) -> Evaluation:
    """Score the systems and both floors.

    `systems` has a summary per conversation by the system's name, the judged system first.
    Conversations without a reference are counted and left out. `options` has the number of
    resamples; `choose_conversations` has already applied its number of conversations. Raises
    DataError if nothing can be scored.
    """
    assert systems, "no system to score"
    assert not {CONSTANT, LEAD} & set(systems), f"{CONSTANT} and {LEAD} are added here"
    for summaries in systems.values():
        assert len(summaries) == len(conversations), "one summary per conversation"

    rows = [row for row, conversation in enumerate(conversations) if conversation.references]
    scored = [conversations[row] for row in rows]
    _check_references(scored, conversations)
    references = [conversation.references for conversation in scored]
    all_references = [text for texts in references for text in texts]
    floors = _floors(scored, train_references)

    texts = {name: [summaries[row] for row in rows] for name, summaries in systems.items()}
    texts |= {floor.name: floor.summaries for floor in floors}
    scores = {name: score_all(summaries, references) for name, summaries in texts.items()}
    judged, *others = texts
    samples = options.bootstrap_samples
    return Evaluation(
        judged=judged,
        systems={name: _result(texts[name], scores[name], samples) for name in texts},
        differences={name: _difference(scores[judged], scores[name], samples) for name in others},
        floors_from={floor.name: floor.origin for floor in floors},
        conversations=len(scored),
        conversations_without_reference=len(conversations) - len(scored),
        references=len(all_references),
        unreadable_references=sum(not has_letters(text) for text in all_references),
        reference_words=_lengths(all_references),
        bootstrap_samples=samples,
        seed=SEED,
        versions={name: version(name) for name in LIBRARIES},
        tokenizer=TOKENIZER,
    )


def choose_conversations(
    conversations: Sequence[Conversation], max_conversations: int | None, seed: int = SEED
) -> list[Conversation]:
    """Return the conversations to score, in order: a seeded sample of those with a reference.

    Raise DataError if their summaries could not be scored, before anybody pays for them.
    """
    chosen = [conversation for conversation in conversations if conversation.references]
    if max_conversations is not None and len(chosen) > max_conversations:
        rows = random.Random(seed).sample(range(len(chosen)), max_conversations)
        chosen = [chosen[row] for row in sorted(rows)]
    _check_references(chosen, conversations)
    return chosen


def why_unscorable(
    conversations: Sequence[Conversation], max_conversations: int | None
) -> str | None:
    """Return why no summary of these conversations could be scored, or None if some could."""
    try:
        choose_conversations(conversations, max_conversations)
    except DataError as error:
        return str(error)
    return None


def _check_references(scored: Sequence[Conversation], given: Sequence[Conversation]) -> None:
    """Raise DataError if there are no references, or none with a word."""
    if not scored:
        raise DataError(
            f"nothing to score against: 0 of {len(given)} conversations have a reference summary; "
            f"{why_missing(given)}"
        )
    if not any(has_letters(text) for conversation in scored for text in conversation.references):
        raise DataError(
            f"nothing to score against: the references of {len(scored)} conversations (the first "
            f"is {scored[0].source}) have no word with a letter, of any alphabet; give others"
        )


def _floors(
    scored: Sequence[Conversation],
    train_references: Sequence[str] | None,
) -> list[_Floor]:
    """Return both floors; only the lead if there is no reference to take as constant sentence."""
    floors = []
    if train_references:
        sentence = constant_sentence(train_references, SEED)
        origin = "the training reference that suits the others best"
        floors.append(_Floor(CONSTANT, [sentence] * len(scored), origin))
    else:
        references = [conversation.references for conversation in scored]
        sentences = leave_one_out_sentences(references, SEED)
        if sentences:
            origin = (
                "no training references were given: for each conversation, the reference of the "
                "other scored conversations that suits those best (leave one out)"
            )
            floors.append(_Floor(CONSTANT, sentences, origin))
    origin = "the first and the last turn of the conversation, as written"
    return [*floors, _Floor(LEAD, [lead(conversation) for conversation in scored], origin)]


def _result(summaries: Sequence[str], scores: Scores, samples: int) -> SystemResult:
    counts = Counter(text.strip() for text in summaries)
    most_common, count = counts.most_common(1)[0]
    return SystemResult(
        scores=_intervals(mean_intervals(_columns(scores), samples, SEED), scores.metrics),
        words=_lengths(summaries),
        empty_summaries=sum(not text.strip() for text in summaries),
        most_common=most_common,
        most_common_share=count / len(summaries),
    )


def _difference(judged: Scores, other: Scores, samples: int) -> Intervals:
    differences = paired_differences(_columns(judged), _columns(other), samples, SEED)
    return _intervals(differences, judged.metrics)


def _columns(scores: Scores) -> NDArray[np.float64]:
    return scores.values.reshape(len(scores.values), -1)  # (conversations, metrics x aggregations)


def _intervals(columns: Sequence[Interval], metrics: Sequence[Metric]) -> Intervals:
    """Return the intervals of `_columns` by metric and aggregation."""
    intervals: Intervals = {}
    for index, metric in enumerate(metrics):
        first = index * len(AGGREGATIONS)
        own = columns[first : first + len(AGGREGATIONS)]
        intervals[metric.name] = dict(zip(AGGREGATIONS, own, strict=True))
    return intervals


def _lengths(texts: Sequence[str]) -> Lengths:
    counts = [length(text) for text in texts]
    low, median, high = np.percentile(counts, [10, 50, 90])
    return Lengths(float(np.mean(counts)), float(low), float(median), float(high))
