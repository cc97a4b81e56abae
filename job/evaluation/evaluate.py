"""Score systems and floors on the same references, to see whether an adapter is worth using.

Summaries and conversations in, an `Evaluation` out: scores with intervals, and the paired
difference of the judged system to each other one.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np

from job.config.sections import ScoringSection
from job.conversations.record import Conversation
from job.conversations.references import why_missing
from job.errors import DataError
from job.evaluation.bootstrap import Interval, mean_intervals, paired_differences
from job.evaluation.floors import constant_sentence, lead, leave_one_out_sentences
from job.evaluation.metrics import AGGREGATIONS, METRICS, Scores, score_all
from job.evaluation.result import CONSTANT, LEAD, Evaluation, Intervals, Lengths, SystemResult
from job.evaluation.words import TOKENIZER, has_letters, length

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
    assert all(len(given) == len(conversations) for given in systems.values()), (
        "one summary per conversation"
    )
    rows = [row for row, conversation in enumerate(conversations) if conversation.references]
    scored = [conversations[row] for row in rows]
    references = [conversation.references for conversation in scored]
    _check_references(scored, conversations)
    floors, floors_from = _floors(scored, train_references)
    texts = {name: [given[row] for row in rows] for name, given in systems.items()} | floors
    scores = {name: score_all(given, references) for name, given in texts.items()}
    judged = next(iter(systems))
    return Evaluation(
        judged=judged,
        systems={
            name: _result(texts[name], scores[name], options.bootstrap_samples) for name in texts
        },
        differences={
            name: _differences(scores[judged], other, options.bootstrap_samples)
            for name, other in scores.items()
            if name != judged
        },
        floors_from=floors_from,
        conversations=len(scored),
        conversations_without_reference=len(conversations) - len(scored),
        references=sum(map(len, references)),
        unreadable_references=sum(not has_letters(text) for some in references for text in some),
        reference_words=_lengths([text for texts_of_one in references for text in texts_of_one]),
        bootstrap_samples=options.bootstrap_samples,
        seed=SEED,
        versions={name: version(name) for name in ("rouge-score", "regex", "numpy")},
        tokenizer=TOKENIZER,
    )


def choose_conversations(
    conversations: Sequence[Conversation], max_conversations: int | None, seed: int = SEED
) -> list[Conversation]:
    """Return the conversations to score, in order: a seeded sample of those with a reference.

    Raises DataError where nothing could be said of their summaries, before they are paid for.
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
    if not scored:
        why = why_missing(given)
        raise DataError(
            f"nothing to score against: 0 of {len(given)} conversations have a reference summary; {why}"
        )
    if not any(has_letters(text) for conversation in scored for text in conversation.references):
        raise DataError(
            f"nothing to score against: the references of {len(scored)} conversations (the first "
            f"is {scored[0].source}) have no word with a letter, of any alphabet; give others"
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
        left_out = leave_one_out_sentences(
            [conversation.references for conversation in scored], SEED
        )
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
    counts = [length(text) for text in texts]
    low, median, high = np.percentile(counts, [10, 50, 90])
    return Lengths(float(np.mean(counts)), float(low), float(median), float(high))
