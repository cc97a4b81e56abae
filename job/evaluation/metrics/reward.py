"""Reward: the score that a reward model gives a summary of its conversation.

A score alone means nothing: it compares summaries of the same conversations. Whether it does so as
people would is measured on pairs beside it (`reward_pairs`).

An empty summary cannot be scored. It counts as the lowest score of the evaluation: left out, an
adapter would gain by writing nothing where it would score low.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from job.config.scoring_sections import MetricModelSection, ScoringRewardModelSection
from job.config.sections import StorageSection
from job.conversations.cleaning import clean
from job.evaluation.bootstrap import Interval, mean_intervals
from job.evaluation.metrics.metric import Metric, Sample
from job.evaluation.metrics.models import MetricModel, errors_about
from job.inference.reward import RewardModel, fetch_reward_model
from job.model.fetch import Base
from job.model.load import free_memory
from job.model.reward import read_reward_model
from job.telemetry import progress

KEY = "evaluation.reward_model"
HALF = 0.5


def measure_reward(samples: Sequence[Sample], model: MetricModel | None) -> NDArray[np.float64]:
    """Return each summary's score: the lowest for an empty one, NaN for one that does not fit.

    Loads the reward model, and frees its memory.
    """
    assert model is not None, "a reward needs a model"
    with loaded_reward_model(model) as judge:
        steps = judge.encoder.prompt.cleaning
        conversations = [clean(sample.conversation, steps) for sample in samples]
        summaries = [sample.summary for sample in samples]
        with progress("scoring rewards", len(samples), "summary") as bar:
            scores = judge.score_texts(conversations, summaries, bar.advance)
    found = np.array([np.nan if score is None else score for score in scores], dtype=np.float64)
    return with_lowest_of_empty(found, summaries)


def with_lowest_of_empty(
    scores: NDArray[np.float64], summaries: Sequence[str]
) -> NDArray[np.float64]:
    """Return the scores, of empty summaries the lowest one; NaN stays without any score."""
    known = scores[~np.isnan(scores)]
    if not known.size:
        return scores
    is_empty = [not summary.strip() for summary in summaries]
    return np.where(is_empty, known.min(), scores)


REWARD = Metric(
    name="reward",
    title="Reward",
    short_title="Reward",
    hub_type="reward",
    direction="higher",
    low=-float("inf"),
    high=float("inf"),
    unit="score",
    needs=("conversation", "model"),
    about="Score by a reward model, which has learned which summaries people would rather have.",
    measure=measure_reward,
    libraries=("torch", "transformers"),
)


@contextmanager
def loaded_reward_model(model: MetricModel) -> Iterator[RewardModel]:
    """Yield the reward model; afterwards its memory is free."""
    assert model.reward is not None, "no reward model"
    with errors_about(KEY):
        yield model.reward.load()
    free_memory()


def fetch_reward_metric(
    section: ScoringRewardModelSection, storage: StorageSection, cache: Path
) -> MetricModel:
    """Bring a reward model to disk. Raise what `read_reward_model` and fetching it raise."""
    with errors_about(KEY):
        adapter = read_reward_model(section.adapter, storage, KEY)
        fetched = fetch_reward_model(adapter, section, storage, cache)
    named = Base(adapter.uri, None, adapter.digest, fetched.on_disk.base.path)
    return MetricModel(KEY, MetricModelSection(model=adapter.uri), named, reward=fetched)


def preferred_shares(
    scores: Mapping[str, NDArray[np.float64]], judged: str, samples: int, seed: int
) -> dict[str, Interval]:
    """Return by system the share of conversations of which the judged one's summary scores higher.

    `scores` are by system, one of each conversation, and a tie is half. A judged summary without a
    score, as it is too long, is not preferred. A conversation for which the other has none is left
    out.
    """
    found = {}
    for name, theirs in scores.items():
        if name == judged:
            continue
        # An adapter must not gain by a summary without an end where it would score low.
        own = np.where(np.isnan(scores[judged]) & ~np.isnan(theirs), -np.inf, scores[judged])
        points = (np.sign(own - theirs) + 1) / 2
        (share,) = mean_intervals(points[:, None], samples, seed, [True])
        if share is not None:
            found[name] = share
    return found


def preference_sentences(judged: str, shares: Mapping[str, Interval]) -> list[str]:
    """Return a sentence about each of the shares by system, for people."""
    return [
        f"It scores {judged} above {name} in {share.mean:.0%} [{share.low:.0%}, {share.high:.0%}] "
        "of the conversations."
        for name, share in shares.items()
    ]


def unscored_sentences(
    scores: Mapping[str, NDArray[np.float64]], empty: Mapping[str, int]
) -> list[str]:
    """Return sentences about summaries that have no score of their own, for people.

    `empty` are the numbers of empty summaries by system.
    """
    found = []
    nothing = [f"{count:,} of {name}" for name, count in empty.items() if count]
    known = np.concatenate(list(scores.values()))
    if nothing and not np.isnan(known).all():
        found.append(
            f"Empty summaries count as the lowest score of this evaluation: {', '.join(nothing)}."
        )
    counts = {name: int(np.isnan(own).sum()) for name, own in scores.items()}
    too_long = [f"{count:,} of {name}" for name, count in counts.items() if count]
    if too_long:
        found.append(
            "Summaries that do not fit into a row of the reward model have no score, and means and "
            f"differences leave their conversations out: {', '.join(too_long)}."
        )
    return found
