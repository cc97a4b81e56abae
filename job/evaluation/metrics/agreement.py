"""The agreement of a classifier with people's labels of the same summaries.

AUROC does not depend on a threshold: it is the probability that a faithful summary has a higher
score than an unfaithful one. Balanced accuracy is the mean of the accuracies in both classes at a
threshold. The threshold is chosen on one half of the labels and judged on the other, both ways, so
that no label judges a threshold that it chose.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.evaluation.bootstrap import HIGH_PERCENTILE, LOW_PERCENTILE, Interval

MIN_LABELS = 20
MIN_OF_EACH_CLASS = 5
UNCALIBRATED = "uncalibrated"
CHANCE = 0.5  # AUROC and balanced accuracy of a coin

Scores = NDArray[np.float64]
Draw = tuple[NDArray[np.int64], NDArray[np.int64]]  # rows of faithful and of unfaithful summaries


@dataclass(frozen=True)
class Agreement:
    """Numbers of a classifier beside labels, with 95% intervals.

    Intervals and `threshold` are None if there are too few labels, or too few of a class. The
    threshold is the best one for all labels together.
    """

    labels: int
    faithful: int
    auroc: Interval | None = None
    balanced_accuracy: Interval | None = None
    threshold: float | None = None

    @property
    def is_calibrated(self) -> bool:
        """True if there are enough labels, and the agreement is better than chance."""
        return self.auroc is not None and self.auroc.low > CHANCE

    @property
    def note(self) -> str:
        """Return the words beside the metric's name wherever it is shown."""
        if self.auroc is None:
            return f"{UNCALIBRATED}: too few labels"
        if not self.is_calibrated:
            return f"{UNCALIBRATED}: no better than chance"
        return f"AUROC {self.auroc.mean:.2f}"

    def sentence(self) -> str:
        """Return one sentence about the agreement, for people."""
        counted = f"{self.labels} labels ({self.faithful} faithful)"
        if self.auroc is None or self.balanced_accuracy is None or self.threshold is None:
            return (
                f"{counted} are too few to compare with the classifier: at least {MIN_LABELS}, and "
                f"{MIN_OF_EACH_CLASS} of each class, are needed"
            )
        agreement = (
            f"on {counted}, the classifier has AUROC {_shown(self.auroc)} and balanced accuracy "
            f"{_shown(self.balanced_accuracy)}; its best threshold is {self.threshold:.2f}"
        )
        if not self.is_calibrated:
            agreement += "; it is not shown to be better than chance"
        return agreement

    def to_json(self) -> dict[str, Any]:
        """Return the agreement as JSON types."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Agreement":
        """Return the agreement that `to_json` wrote."""
        intervals = {
            name: None if plain[name] is None else Interval(**plain[name])
            for name in ("auroc", "balanced_accuracy")
        }
        return Agreement(**{**plain, **intervals})


def measure_agreement(
    scores: Sequence[float], labels: Sequence[bool], samples: int, seed: int
) -> Agreement:
    """Return the agreement of scores with labels. NaN counts as the lowest score.

    The bootstrap draws summaries within each class, so that both are in every sample.
    """
    values = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-1.0)
    is_faithful = np.asarray(labels, dtype=bool)
    counted = len(values), int(is_faithful.sum())
    rarer = min(counted[1], counted[0] - counted[1])
    if counted[0] < MIN_LABELS or rarer < MIN_OF_EACH_CLASS:
        return Agreement(*counted)

    rng = np.random.default_rng(seed)
    faithful, unfaithful = values[is_faithful], values[~is_faithful]
    verdicts = _verdicts_of_halves(faithful, unfaithful, rng)

    def auroc_of(draw: Draw) -> float:
        return auroc(faithful[draw[0]], unfaithful[draw[1]])

    def accuracy_of(draw: Draw) -> float:
        right, wrong = verdicts[0][draw[0]].mean(), verdicts[1][draw[1]].mean()
        return float(right + 1 - wrong) / 2

    whole = np.arange(len(faithful)), np.arange(len(unfaithful))
    draws = [
        (rng.choice(whole[0], len(faithful)), rng.choice(whole[1], len(unfaithful)))
        for _ in range(samples)
    ]
    return Agreement(
        *counted,
        auroc=_interval(auroc_of, whole, draws),
        balanced_accuracy=_interval(accuracy_of, whole, draws),
        threshold=best_threshold(faithful, unfaithful),
    )


def auroc(faithful: Scores, unfaithful: Scores) -> float:
    """Return the probability that a faithful score exceeds an unfaithful one; equal is a half."""
    ordered = np.sort(unfaithful)
    below = np.searchsorted(ordered, faithful, side="left")
    not_above = np.searchsorted(ordered, faithful, side="right")
    return float((below + not_above).sum()) / 2 / len(faithful) / len(unfaithful)


def best_threshold(faithful: Scores, unfaithful: Scores) -> float:
    """Return the threshold with the best balanced accuracy.

    Scores of at least the threshold count as faithful. It is halfway between two scores.
    """
    values = np.unique(np.concatenate([faithful, unfaithful]))
    between = (values[1:] + values[:-1]) / 2
    thresholds = np.concatenate([values[:1], between])
    found = 1 - np.searchsorted(np.sort(faithful), thresholds) / len(faithful)
    taken = 1 - np.searchsorted(np.sort(unfaithful), thresholds) / len(unfaithful)
    return float(thresholds[int((found - taken).argmax())])


def _verdicts_of_halves(
    faithful: Scores, unfaithful: Scores, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which summaries of each class pass the threshold that the other half chose."""
    verdicts = np.zeros(len(faithful), dtype=bool), np.zeros(len(unfaithful), dtype=bool)
    orders = rng.permutation(len(faithful)), rng.permutation(len(unfaithful))
    for half in (0, 1):
        mine = [order[half::2] for order in orders]
        others = [order[1 - half :: 2] for order in orders]
        threshold = best_threshold(faithful[others[0]], unfaithful[others[1]])
        verdicts[0][mine[0]] = faithful[mine[0]] >= threshold
        verdicts[1][mine[1]] = unfaithful[mine[1]] >= threshold
    return verdicts


def _interval(statistic: Callable[[Draw], float], whole: Draw, draws: Sequence[Draw]) -> Interval:
    drawn = [statistic(draw) for draw in draws]
    low, high = np.percentile(drawn, [LOW_PERCENTILE, HIGH_PERCENTILE])
    labels = sum(map(len, whole))
    return Interval(statistic(whole), float(low), float(high), labels)


def _shown(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
