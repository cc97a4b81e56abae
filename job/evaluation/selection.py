"""The result of a checkpoint selection: what each candidate scored, and which one was chosen.

A training with `adapter_from: best_metric` leaves it in run.json, in its report and on TensorBoard.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from job.evaluation.bootstrap import Interval
from job.evaluation.metrics.all_metrics import metric_named


@dataclass(frozen=True)
class CandidateScore:
    """One candidate: the adapter as it was at an evaluation during the training.

    `score` is its mean over the conversations of the selection, None if it was not scored.
    """

    step: int
    epoch: float
    validation_loss: float
    score: Interval | None


@dataclass(frozen=True)
class SelectionCurve:
    """The candidates by step, and the step of the chosen one.

    `conversations` is the number of validation conversations that each candidate summarized. If
    `held_out`, the scores of the adapter are of other conversations than these; otherwise they are
    of these too, and flatter the adapter a little. `fallback` says why the validation loss chose
    instead of the metric, None if the metric did.
    """

    metric: str
    conversations: int
    held_out: bool
    candidates: tuple[CandidateScore, ...]
    chosen: int
    fallback: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the selection as JSON types."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "SelectionCurve":
        """Return the selection that `to_json` wrote."""
        candidates = []
        for raw in plain["candidates"]:
            score = None if raw["score"] is None else Interval(**raw["score"])
            candidates.append(CandidateScore(**{**raw, "score": score}))
        return SelectionCurve(**{**plain, "candidates": tuple(candidates)})

    @property
    def metric_title(self) -> str:
        """The metric as tables have it."""
        metric = metric_named(self.metric)
        return metric.title if metric else self.metric

    def sentence(self) -> str:
        """Return which adapter was chosen by what, and what that means for its scores."""
        if self.fallback is not None:
            return (
                f"The adapter is that of step {self.chosen}, chosen by the validation loss and "
                f"not by {self.metric_title}: {self.fallback}."
            )
        scored = sum(candidate.score is not None for candidate in self.candidates)
        text = (
            f"The adapter is that of step {self.chosen}: of {scored} candidates, it has the best "
            f"{self.metric_title} on {self.conversations} validation conversations."
        )
        if self.held_out:
            return f"{text} The scores here leave these conversations out."
        return f"{text} The scores here include these conversations and flatter it a little."
