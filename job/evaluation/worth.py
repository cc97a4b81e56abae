"""Decide in one sentence whether a system is worth using, from its gate or its comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from job.config.gate_sections import MIN_CONVERSATIONS
from job.evaluation.gate import Check, GateResult
from job.evaluation.metrics.all_metrics import HEADLINE, metric_named
from job.evaluation.metrics.metric import Metric
from job.evaluation.result import (
    Evaluation,
    Kind,
    comparison_sentence,
    mean_score,
    other_systems,
    system_phrase,
    verdict,
)
from job.printable import number_of

# Whom a new system must beat, most important first. People and the weights as they were trained
# are no rivals.
RIVALS: tuple[Kind, ...] = ("champion", "other", "base", "floor")


@dataclass(frozen=True)
class Worth:
    """The verdict for people. `kind` is `good`, `bad`, or `open` if nobody can tell."""

    kind: Literal["good", "bad", "open"]
    sentence: str
    context: Sequence[str] = ()


def worth(evaluation: Evaluation, gate: GateResult | None = None) -> Worth:
    """Return the verdict on the judged system. That of a gate stands; else comparisons decide."""
    metric = HEADLINE
    if gate is not None:
        metric = metric_named(gate.metric) or HEADLINE
    rivals = _rivals(evaluation, metric)
    context = _context(evaluation, metric, rivals)
    if gate is not None:
        return _by_gate(evaluation, metric, gate, rivals, context)
    if not rivals:
        return Worth("open", "Nobody can tell: there is nothing to compare it with.", context)

    outcomes = {name: verdict(evaluation, name, metric) for name in rivals}
    if "too few conversations" in outcomes.values():
        count = number_of(evaluation.conversations, "conversation is", "conversations are")
        sentence = f"Nobody can tell: {count} too few (at least {MIN_CONVERSATIONS})."
        return Worth("open", sentence, context)

    # What hardly reads the conversation must be beaten before anything else; a loss says more than
    # a tie.
    unbeaten = [name for name in reversed(rivals) if outcomes[name] != "beats"]
    if not unbeaten:
        return Worth("good", f"Worth using: {_compared(evaluation, metric, rivals[0])}.", context)
    name = min(unbeaten, key=lambda name: (not _must_be_beaten(evaluation, name),
                                           outcomes[name] != "loses to"))  # fmt: skip
    against = _compared(evaluation, metric, name)
    if _must_be_beaten(evaluation, name):
        return Worth("bad", f"Not worth using: {against}.", context)
    if outcomes[name] == "loses to":
        return Worth("bad", f"Keep {system_phrase(evaluation, name)}: {against}.", context)
    return Worth("open", f"No reason to switch yet: {against}.", context)


def _must_be_beaten(evaluation: Evaluation, name: str) -> bool:
    return evaluation.systems[name].kind in ("floor", "base")


def _rivals(evaluation: Evaluation, metric: Metric) -> list[str]:
    """Return the systems to beat, most important first; of the floors the strongest first."""

    def rank(name: str) -> tuple[int, float]:
        score = mean_score(evaluation, name, metric)
        sign = 1 if metric.direction == "lower" else -1
        return RIVALS.index(evaluation.systems[name].kind), sign * score.mean if score else 0.0

    found = [name for name in other_systems(evaluation) if evaluation.systems[name].kind in RIVALS]
    return sorted(found, key=rank)


def _by_gate(
    evaluation: Evaluation,
    metric: Metric,
    gate: GateResult,
    rivals: Sequence[str],
    context: Sequence[str],
) -> Worth:
    if gate.reason is not None:
        return Worth("bad", f"Not worth using yet: {gate.reason}.", context)
    count = sum(check.passed is not None for check in gate.checks)
    against = f"; {_compared(evaluation, metric, rivals[0])}" if rivals else ""
    if gate.passed:
        passed = f"{gate.judged} passed all checks of its gate ({count})"
        return Worth("good", f"Worth using: {passed}{against}.", context)
    names = ", ".join(dict.fromkeys(_name(check) for check in gate.failures))
    failed = f"{gate.judged} failed {len(gate.failures)} of {count} checks of its gate ({names})"
    return Worth("bad", f"Not worth using yet: {failed}{against}.", context)


def _name(check: Check) -> str:
    """Return what a check is about, short enough for a list."""
    metric = metric_named(check.metric)
    return metric.title.lower() if check.rule == "guard" and metric else check.name


def _compared(evaluation: Evaluation, metric: Metric, name: str) -> str:
    return f"{comparison_sentence(evaluation, name, metric)} in {metric.title}"


def _context(evaluation: Evaluation, metric: Metric, rivals: Sequence[str]) -> list[str]:
    """Return how it stands against the rest and against people, and what the metric is."""
    lines = []
    beaten = [name for name in rivals if verdict(evaluation, name, metric) == "beats"]
    if len(beaten) == len(rivals) > 1:
        names = [system_phrase(evaluation, name) for name in beaten]
        lines.append(f"It beats {', '.join(names[:-1])} and {names[-1]}.")
    for name in other_systems(evaluation):
        is_known = verdict(evaluation, name, metric) != "too few conversations"
        if evaluation.systems[name].kind == "human" and is_known:
            lines.append(f"Beside people: {_compared(evaluation, metric, name)}.")
    lines.append(f"{metric.title}: {metric.about}")
    return lines
