"""Score systems and floors on the same references, to see if an adapter is worth using.

Systems and conversations in, an `Evaluation` out: scores with intervals, and the paired difference
of the judged system to each other one.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.config.scoring_sections import ScoringSection
from job.conversations.record import Conversation
from job.conversations.references import why_missing
from job.errors import DataError
from job.evaluation.bootstrap import Interval, mean_intervals, paired_differences
from job.evaluation.floors import added_systems
from job.evaluation.metrics.all_metrics import available_metrics
from job.evaluation.metrics.metric import Metric
from job.evaluation.metrics.models import MetricModel
from job.evaluation.metrics.reward import (
    REWARD,
    preference_sentences,
    preferred_shares,
    unscored_sentences,
)
from job.evaluation.result import Evaluation, Intervals, Lengths, SystemResult
from job.evaluation.score import Scores, score_systems
from job.evaluation.systems import Scored, System
from job.evaluation.words import TOKENIZER, has_letters, length
from job.telemetry import heartbeat

# Of the bootstrap, the floors' samples and the choice of conversations; recorded in the evaluation.
SEED = 0
NO_MODELS: Mapping[str, MetricModel] = {}


def evaluate(
    systems: Sequence[System],
    conversations: Sequence[Conversation],
    options: ScoringSection,
    train_references: Sequence[str] | None,
    models: Mapping[str, MetricModel] = NO_MODELS,
) -> Scored:
    """Score the systems, the floors and the human references.

    The judged system is the first. Conversations without a reference are counted and left out.
    `options` has the number of resamples; `choose_conversations` has already applied its number of
    conversations. `models` are by the metric that needs one. Raise DataError without a reference.
    """
    assert systems, "no system to score"
    for system in systems:
        assert len(system.summaries) == len(conversations), "one summary per conversation"

    rows = [row for row, conversation in enumerate(conversations) if conversation.references]
    scored = [conversations[row] for row in rows]
    _check_references(scored, conversations)
    everyone = [system.at(rows) for system in systems]
    everyone += added_systems(scored, train_references, SEED)
    assert len({system.name for system in everyone}) == len(everyone), "a name for each system"

    metrics = available_metrics(models)
    with heartbeat("scoring"):
        scores = score_systems(everyone, scored, metrics, models)
    judged, *others = everyone
    all_references = [text for conversation in scored for text in conversation.references]
    samples = options.bootstrap_samples
    means = {
        name: {metric.name: own[metric.name].of(metric) for metric in metrics}
        for name, own in scores.items()
    }
    evaluation = Evaluation(
        judged=judged.name,
        systems={
            system.name: _result(system, scores[system.name], metrics, samples)
            for system in everyone
        },
        differences={
            other.name: _differences(
                scores[judged.name], other, scores[other.name], metrics, samples
            )
            for other in others
        },
        conversations=len(scored),
        conversations_without_reference=len(conversations) - len(scored),
        references=len(all_references),
        unreadable_references=sum(not has_letters(text) for text in all_references),
        reference_words=_lengths(all_references),
        bootstrap_samples=samples,
        seed=SEED,
        versions=_versions(metrics),
        tokenizer=TOKENIZER,
        models=_records(models, means, everyone, samples),
        repeated_conversations=len(scored) - len({_talk(c) for c in scored}),
        equal_to_reference=_equal_to_reference(judged, scored),
    )
    return Scored(evaluation, scored, everyone, means)


def _records(
    models: Mapping[str, MetricModel],
    means: Mapping[str, Mapping[str, NDArray[np.float64]]],
    systems: Sequence[System],
    samples: int,
) -> dict[str, dict[str, Any]]:
    """Return what is known of each model; of a reward model, whom it prefers to others, too.

    The judged system is the first.
    """
    judged = systems[0].name
    records = {name: model.record() for name, model in models.items()}
    if REWARD.name in records:
        rewards = {name: own[REWARD.name] for name, own in means.items()}
        shares = preferred_shares(rewards, judged, samples, SEED)
        plain = {name: [share.mean, share.low, share.high] for name, share in shares.items()}
        record = records[REWARD.name]
        record["preferred"] = plain
        record["sentences"] = [record["trust"]["sentence"]] if "trust" in record else []
        record["sentences"] += preference_sentences(judged, shares)
        empty = {
            system.name: sum(not text.strip() for text in system.summaries) for system in systems
        }
        record["empty"] = empty
        record["sentences"] += unscored_sentences(rewards, empty)
    return records


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


def _result(
    system: System, scores: Mapping[str, Scores], metrics: Sequence[Metric], samples: int
) -> SystemResult:
    counts = Counter(text.strip() for text in system.summaries)
    most_common, count = counts.most_common(1)[0]
    columns = np.hstack([scores[metric.name].values for metric in metrics])
    return SystemResult(
        kind=system.kind,
        origin=system.origin,
        serving=system.serving,
        conversations=len(system.summaries),
        scores=_by_metric(mean_intervals(columns, samples, SEED, _shares(metrics)), metrics),
        words=_lengths(system.summaries),
        most_common=most_common,
        most_common_share=count / len(system.summaries),
    )


def _differences(
    judged: Mapping[str, Scores],
    other: System,
    scores: Mapping[str, Scores],
    metrics: Sequence[Metric],
    samples: int,
) -> Intervals:
    """Return the judged system's scores minus another's, on the conversations that both have."""
    left = np.hstack([_comparable(judged[metric.name], metric, other) for metric in metrics])
    right = np.hstack([scores[metric.name].values for metric in metrics])
    columns = paired_differences(left, right, samples, SEED, _shares(metrics))
    return _by_metric(columns, metrics, is_difference=True)


def _shares(metrics: Sequence[Metric]) -> list[bool]:
    """Return for each column whether it has shares."""
    return [metric.unit == "share" for metric in metrics for _ in metric.aggregations]


def _comparable(judged: Scores, metric: Metric, other: System) -> NDArray[np.float64]:
    """Return the scores; the best over as many references as a person is compared with."""
    if other.kind != "human" or "reference" not in metric.needs:
        return judged.values
    values = judged.values.copy()
    values[:, metric.aggregations.index("best")] = judged.best_of_fewer
    return values


def _by_metric(
    columns: Sequence[Interval | None], metrics: Sequence[Metric], is_difference: bool = False
) -> Intervals:
    """Return the intervals of columns by metric and aggregation, without those that have none.

    They end where the metric's range ends.
    """
    intervals: Intervals = {}
    remaining = iter(columns)
    for metric in metrics:
        own = {aggregation: next(remaining) for aggregation in metric.aggregations}
        width = metric.high - metric.low
        low, high = (-width, width) if is_difference else (metric.low, metric.high)
        present = {
            str(name): replace(found, low=max(found.low, low), high=min(found.high, high))
            for name, found in own.items()
            if found is not None
        }
        if present:
            intervals[metric.name] = present
    return intervals


def _versions(metrics: Sequence[Metric]) -> dict[str, str]:
    libraries = sorted({name for metric in metrics for name in metric.libraries})
    return {name: version(name) for name in libraries}


def _talk(conversation: Conversation) -> tuple[tuple[str, str], ...]:
    return tuple((turn.role, turn.text) for turn in conversation.turns)


def _equal_to_reference(system: System, scored: Sequence[Conversation]) -> int:
    """Return how many summaries are a reference of their conversation, word for word."""
    count = 0
    for summary, conversation in zip(system.summaries, scored, strict=True):
        words = summary.split()
        count += bool(words) and words in [text.split() for text in conversation.references]
    return count


def _lengths(texts: Sequence[str]) -> Lengths:
    counts = [length(text) for text in texts]
    low, median, high = np.percentile(counts, [10, 50, 90])
    return Lengths(float(np.mean(counts)), float(low), float(median), float(high))
