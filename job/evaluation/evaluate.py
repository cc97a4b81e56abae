"""Whether the adapter is worth using.

Purpose: the summaries of several systems and of two floors, scored against the same references, with intervals, and
the judged system's paired difference to each other one. Summaries and conversations in, an `Evaluation` out. Knows
nothing of how summaries are generated, nor of how the result is shown.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np

from job.config.sections import ScoringSection
from job.conversations.record import Conversation
from job.errors import DataError
from job.evaluation.bootstrap import Interval, mean_intervals, paired_differences
from job.evaluation.floors import constant_sentence, lead, leave_one_out_sentences
from job.evaluation.metrics import AGGREGATIONS, METRICS, Scores, score_all, words
from job.evaluation.result import CONSTANT, LEAD, Evaluation, Intervals, Lengths, SystemResult

SEED = 0  # of the bootstrap, the floors' samples and the choice of conversations; recorded in the evaluation


def evaluate(
    systems: Mapping[str, Sequence[str]],
    conversations: Sequence[Conversation],
    options: ScoringSection,
    train_references: Sequence[str] | None,
) -> Evaluation:
    """Score the systems (name → one summary per conversation, the judged system first) and both floors.

    Conversations without a reference are counted and left out; DataError when none is left. `options` says how many
    resamples to draw; how many conversations to summarize was decided before (`choose_conversations`).
    """
    assert systems, "no system to score"
    assert not {CONSTANT, LEAD} & set(systems), f"{CONSTANT} and {LEAD} are added here"
    assert all(len(given) == len(conversations) for given in systems.values()), "one summary per conversation"
    rows = [row for row, conversation in enumerate(conversations) if conversation.references]
    scored = [conversations[row] for row in rows]
    references = [conversation.references for conversation in scored]
    _check_references(scored, len(conversations))
    floors, floors_from = _floors(scored, train_references)
    texts = {name: [given[row] for row in rows] for name, given in systems.items()} | floors
    scores = {name: score_all(given, references) for name, given in texts.items()}
    judged = next(iter(systems))
    return Evaluation(
        judged=judged,
        systems={name: _result(texts[name], scores[name], options.bootstrap_samples) for name in texts},
        differences={
            name: _differences(scores[judged], other, options.bootstrap_samples)
            for name, other in scores.items()
            if name != judged
        },
        floors_from=floors_from,
        conversations=len(scored),
        conversations_without_reference=len(conversations) - len(scored),
        references=sum(map(len, references)),
        unreadable_references=sum(not words(text) for texts_of_one in references for text in texts_of_one),
        reference_words=_lengths([text for texts_of_one in references for text in texts_of_one]),
        bootstrap_samples=options.bootstrap_samples,
        seed=SEED,
        versions={"rouge-score": version("rouge-score"), "numpy": np.__version__},
    )


def choose_conversations(
    conversations: Sequence[Conversation], max_conversations: int | None, seed: int = SEED
) -> list[Conversation]:
    """The conversations to summarize and score, in their order: a seeded sample of those that have a reference.

    DataError when none has one, before anything is paid for summaries that nothing can be said about.
    """
    able = [conversation for conversation in conversations if conversation.references]
    _check_references(able, len(conversations))
    if max_conversations is None or len(able) <= max_conversations:
        return able
    return [able[row] for row in sorted(random.Random(seed).sample(range(len(able)), max_conversations))]


def _check_references(scored: Sequence[Conversation], given: int) -> None:
    if not scored:
        raise DataError(
            f"nothing to score against: 0 of {given} conversations have a reference summary; "
            "give conversations with references, or map their column under data.columns.summary"
        )
    if not any(words(text) for conversation in scored for text in conversation.references):
        raise DataError(
            f"nothing to score against: not one word of the references of {len(scored)} conversations (the first is "
            f"{scored[0].source}) has a letter a-z or a digit, which is all that ROUGE reads; use another measure"
        )


def _floors(
    scored: Sequence[Conversation], train_references: Sequence[str] | None
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The floors' summaries, and where each floor comes from."""
    floors, floors_from = {}, {}
    if train_references:
        sentence = constant_sentence(train_references, SEED)
        floors[CONSTANT] = [sentence] * len(scored)
        floors_from[CONSTANT] = "the training reference that suits the others best"
    else:
        left_out = leave_one_out_sentences([conversation.references for conversation in scored], SEED)
        if left_out:
            floors[CONSTANT] = left_out
            floors_from[CONSTANT] = (
                "no training references were given: for each conversation, the reference of the other scored "
                "conversations that suits those best (leave one out)"
            )
    floors[LEAD] = [lead(conversation) for conversation in scored]
    floors_from[LEAD] = "the first and the last turn of the conversation, as written"
    return floors, floors_from


def _result(summaries: Sequence[str], scores: Scores, samples: int) -> SystemResult:
    (most_common, count), *_ = Counter(text.strip() for text in summaries).most_common(1)
    return SystemResult(
        scores=_intervals(mean_intervals(_columns(scores), samples, SEED)),
        words=_lengths(summaries),
        empty_summaries=sum(not text.strip() for text in summaries),
        most_common=most_common,
        most_common_share=count / len(summaries),
    )


def _differences(judged: Scores, other: Scores, samples: int) -> Intervals:
    return _intervals(paired_differences(_columns(judged), _columns(other), samples, SEED))


def _columns(scores: Scores) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return scores.values.reshape(len(scores.values), -1)  # (conversations, metrics x aggregations)


def _intervals(columns: Sequence[Interval]) -> Intervals:
    names = [(metric, aggregation) for metric in METRICS for aggregation in AGGREGATIONS]
    found: Intervals = {metric: {} for metric in METRICS}
    for (metric, aggregation), interval in zip(names, columns, strict=True):
        found[metric][aggregation] = interval
    return found


def _lengths(texts: Sequence[str]) -> Lengths:
    counts = [len(text.split()) for text in texts]
    low, median, high = np.percentile(counts, [10, 50, 90])
    return Lengths(float(np.mean(counts)), float(low), float(median), float(high))
