"""Judge a reward model by pairs that it was not trained on: its agreement with people.

Its scores are worth what this accuracy is. A model may have learned no more than that people
prefer longer summaries, or shorter ones: so the accuracy of choosing by length is measured, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from job.config.data_sections import ReadingSection
from job.config.scoring_sections import ScoringRewardModelSection
from job.config.sections import StorageSection, as_list
from job.conversations.cleaning import clean
from job.conversations.record import Conversation
from job.conversations.splits import find_repeats
from job.errors import DamagedError, DataError, naming_key
from job.evaluation.bootstrap import Interval, mean_intervals, paired_differences
from job.evaluation.evaluate import SEED
from job.evaluation.held_out_pairs import (
    HeldOutPair,
    HeldOutPairs,
    group_pairs,
    named,
    read_pairs,
    repeats_of,
)
from job.evaluation.metrics.models import MetricModel
from job.evaluation.metrics.reward import KEY, REWARD, loaded_reward_model
from job.evaluation.reward_training import read_learned
from job.evaluation.win_rate import means_by_conversation, shown_rate, within
from job.evaluation.words import length
from job.inference.reward import RewardModel
from job.printable import number_of
from job.storage.open import list_inputs
from job.storage.selection import Selection
from job.telemetry import event

HALF = 0.5
INTERVALS = ("accuracy", "by_length", "beyond_length", "margin")


@dataclass(frozen=True)
class RewardOnPairs:
    """The agreement of a reward model with people, on pairs that it was not trained on.

    `has_chosen` is True if the checkpoint was chosen by the loss on these pairs. `not_compared`
    says why they could not be compared with what it was trained on; it is empty if they were.
    Intervals are over conversations. `accuracy` is the share of pairs whose chosen summary has the
    higher score; a tie is half. `by_length` is that of a rule that knows lengths alone, `longer`
    says which. `beyond_length` is the first minus the second. `margin` is the mean difference of
    scores. `length_correlation` is that of the differences of scores and of words, from -1 to 1.
    """

    pairs: int
    conversations: int
    left_out: int  # pairs that do not fit into a row
    accuracy: Interval | None = None
    by_length: Interval | None = None
    beyond_length: Interval | None = None
    margin: Interval | None = None
    longer: bool = True
    length_correlation: float | None = None
    has_chosen: bool = False
    not_compared: str = ""

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "RewardOnPairs":
        """Return the result that `to_json` wrote; raise DamagedError for anything else."""
        try:
            read = {
                key: None if plain[key] is None else Interval(**plain[key]) for key in INTERVALS
            }
            return RewardOnPairs(**{**plain, **read})
        except (KeyError, TypeError) as error:
            raise DamagedError(
                "the scores of the reward model are not those of this version of recap "
                f"({type(error).__name__}: {error}): evaluate again"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        return asdict(self)

    @property
    def is_trusted(self) -> bool:
        """True if it is shown to agree with people more than chance and lengths do."""
        beats = [not self.not_compared, self.accuracy and self.accuracy.low > HALF]
        beats.append(self.beyond_length and self.beyond_length.low > 0)
        return all(beats) and self.accuracy is not None and self.accuracy.is_known

    def verdict(self) -> str:
        """Return in one sentence whether its scores can be trusted."""
        if self.accuracy is None or self.beyond_length is None:
            return f"Nothing is known of the reward model: no {self._kind}pair fits into a row."
        pairs = "pairs that also chose the checkpoint" if self.has_chosen else f"{self._kind}pairs"
        kept = f"It agrees with people on {shown_rate(self.accuracy)} of {pairs}"
        if self.accuracy.low <= HALF or not self.accuracy.is_known:
            return f"{kept}, which is not shown to be better than chance: do not rely on it."
        rule = f"to prefer the {'longer' if self.longer else 'shorter'} summary"
        if self.beyond_length.low <= 0:
            return (
                f"{kept}, better than chance, and not shown to be better than {rule}: it may have "
                "learned no more than lengths."
            )
        return f"{kept}, better than chance and than {rule}."

    def lines(self) -> list[str]:
        """Return the numbers in lines, for people."""
        pairs = number_of(self.pairs, f"{self._kind}pair", f"{self._kind}pairs")
        found = [f"{pairs} of {number_of(self.conversations, 'conversation', 'conversations')}"]
        if self.has_chosen:
            found[0] += ", by whose loss the checkpoint was chosen, too: that flatters it"
        if self.not_compared:
            found[0] += (
                f", which could not be compared with what it was trained on ({self.not_compared}): "
                "if it was trained on them, that flatters it"
            )
        if self.left_out:
            found[0] += f"; {self.left_out:,} more do not fit into a row"
        if self.accuracy is None or self.by_length is None or self.margin is None:
            return found
        rule = "longer" if self.longer else "shorter"
        found += [
            f"accuracy {shown_rate(self.accuracy)}: the chosen summary has the higher score",
            f"accuracy of preferring the {rule} summary: {shown_rate(self.by_length)}",
            f"margin {self.margin.mean:+.3f} [{self.margin.low:+.3f}, {self.margin.high:+.3f}]: "
            "the mean difference of scores",
        ]
        if self.length_correlation is not None:
            found.append(
                f"differences of scores and of lengths correlate by {self.length_correlation:+.2f}"
            )
        return found

    @property
    def _kind(self) -> str:
        """The word before pairs: they are called held-out only where that is known."""
        return "" if self.has_chosen or self.not_compared else "held-out "


class RewardPairs(NamedTuple):
    """Pairs that show what a reward model is worth.

    `not_compared` says why they could not be compared with what it was trained on.
    """

    pairs: HeldOutPairs
    not_compared: str


def judge_on_pairs(model: RewardModel, pairs: HeldOutPairs, samples: int) -> RewardOnPairs:
    """Score both summaries of each pair, and return how often the model agrees with people.

    Conversations are cleaned. `samples` is the number of resamples.
    """
    judged = [
        pairs.conversations[pair.conversation]._replace(answers=pair.answers())
        for pair in pairs.pairs
    ]
    found = model.score_answers(judged)
    kept = [row for row, scores in enumerate(found) if scores is not None]
    left_out = len(found) - len(kept)
    if not kept:
        return RewardOnPairs(0, 0, left_out)
    own = [pairs.pairs[row] for row in kept]
    differences = np.array([_difference(found[row]) for row in kept])
    lengths = np.array([length(pair.chosen) - length(pair.rejected) for pair in own], float)
    return compare(own, differences, lengths, samples, left_out)


def with_trust(
    models: dict[str, MetricModel], given: RewardPairs | None, samples: int
) -> dict[str, MetricModel]:
    """Return the models, the reward model, if there is one, with what its scores are worth.

    Loads it, and frees its memory. `samples` is the number of resamples.
    """
    if given is None:
        return models
    pairs = given.pairs
    own = models[REWARD.name]
    with loaded_reward_model(own) as judge:
        steps = judge.encoder.prompt.cleaning
        cleaned = [clean(conversation, steps) for conversation in pairs.conversations]
        found = judge_on_pairs(judge, HeldOutPairs(cleaned, pairs.pairs), samples)
    found = replace(found, not_compared=given.not_compared)
    sentence = " ".join([found.verdict(), *(f"{line}." for line in found.lines())])
    event("reward model", verdict=found.verdict())
    trust = {"sentence": sentence, "pairs": found.to_json()}
    return models | {REWARD.name: replace(own, trust=trust)}


def read_reward_pairs(
    section: ScoringRewardModelSection | None,
    reading: ReadingSection,
    storage: StorageSection,
    train: Iterable[Conversation] = (),
) -> RewardPairs | None:
    """Read the pairs that show what a reward model is worth; None without one.

    Compare their conversations with those of `train`, which the config names, and with those of
    the reward model's own training. Raise DataError if one of either repeats one of the pairs, and
    for a row that is no pair.
    """
    if section is None:
        return None
    with naming_key(f"{KEY}.pairs"):
        files = list_inputs(as_list(section.pairs), storage, Selection.of(reading))
        pairs = group_pairs(read_pairs(files, reading))
    _check_apart(pairs, train, "train")
    learned = read_learned(section.adapter, storage)
    _check_apart(pairs, learned.conversations, "the data of the reward model's training")
    return RewardPairs(pairs, learned.why_unknown)


def _check_apart(pairs: HeldOutPairs, train: Iterable[Conversation], where: str) -> None:
    """Raise DataError if a conversation to train on repeats one of the pairs."""
    # Two trainings may have learned the same conversation.
    leaks = list(dict.fromkeys(find_repeats(train, pairs.conversations)))
    if leaks:
        raise DataError(
            f"{KEY}.pairs: {repeats_of(leaks)}, in {where}, so its agreement with people would "
            f"flatter it; take them out of the pairs ({named(leaks)}), or give pairs of later weeks"
        )


def compare(
    pairs: Sequence[HeldOutPair],
    scores: NDArray[np.float64],
    lengths: NDArray[np.float64],
    samples: int,
    left_out: int = 0,
) -> RewardOnPairs:
    """Return the result of differences, chosen minus rejected, in scores and in words.

    Of the rules that prefer longer and shorter summaries, the better one counts.
    """
    points, by_length = _points(scores), _points(lengths)
    longer = bool(by_length.mean() >= HALF)
    by_length = by_length if longer else 1 - by_length
    columns = np.array(
        [means_by_conversation(pairs, list(each)) for each in (points, by_length, scores)]
    ).T  # (conversations, 3)
    accuracy, rule, margin = mean_intervals(columns, samples, SEED, [True, True, False])
    (beyond,) = paired_differences(columns[:, :1], columns[:, 1:2], samples, SEED)
    size = float(np.sqrt((scores**2).sum() * (lengths**2).sum()))
    return RewardOnPairs(
        len(pairs),
        len(columns),
        left_out,
        accuracy=None if accuracy is None else within(accuracy, 0.0, 1.0),
        by_length=None if rule is None else within(rule, 0.0, 1.0),
        beyond_length=None if beyond is None else within(beyond, -1.0, 1.0),
        margin=margin,
        longer=longer,
        length_correlation=float((scores * lengths).sum()) / size if size else None,
    )


def _difference(scores: Sequence[float] | None) -> float:
    assert scores is not None
    chosen, rejected = scores
    return chosen - rejected


def _points(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 for each pair in the right order, and a half for a tie."""
    points: NDArray[np.float64] = (np.sign(differences) + 1) / 2
    return points
