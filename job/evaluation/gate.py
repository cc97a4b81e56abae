"""The gate: whether a system beat its opponents outside the interval, and nothing got worse.

A pure function of evaluations. Every number is a paired difference on the same conversations,
signed so that more is better: the judged system's gain.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from job.config.gate_sections import MIN_CONVERSATIONS, GateSection
from job.errors import DamagedError
from job.evaluation.bootstrap import Interval
from job.evaluation.metrics.all_metrics import metric_named, title_of
from job.evaluation.metrics.metric import Metric
from job.evaluation.result import (
    Evaluation,
    Kind,
    mean_difference,
    mean_score,
    shown_difference,
    system_phrase,
)
from job.printable import number_of

FILE = "gate.json"
ROUNDING = 1e-9  # of sums of floats: 1 of 100 is no more than 0.01
KINDS: Mapping[str, Kind] = {
    "floors": "floor",
    "base": "base",
    "champion": "champion",
    "others": "other",
}

# "reload": somebody else can load it. "refused": somebody else tried, and it is another adapter.
# "win rate" and "agreement" are of held-out pairs.
Rule = Literal[
    "better", "no worse", "guard", "older set", "win rate", "agreement", "reload", "refused"
]
# "compared": it summarized the same conversations. "none yet": the pointer does not exist, so a
# passing adapter is the first. "itself": the judged adapter is the champion already.
ChampionState = Literal["compared", "none yet", "itself", "not named"]
NOTHING_LOST: Mapping[str, float] = {}
NOTHING_TO_COMPARE = {
    "none yet": "there is no champion yet: this would be the first",
    "itself": "it is the champion already",
}


@dataclass(frozen=True)
class Check:
    """One demand of a gate, and what was found.

    `value` with `low` and `high` is the gain over the opponent and its 95% interval, None if it is
    not known. `margin` is how much worse is allowed. Of a win rate, `value` is the rate itself, and
    its interval must be above 0.5 - `margin`. `passed` is None for a demand that nothing could be
    held against: `sentence` says why.
    """

    name: str
    opponent: str
    metric: str
    rule: Rule
    margin: float
    passed: bool | None
    sentence: str
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class OlderSet:
    """The evaluation of an adapter and the champion on an older test set.

    None, and the reason in `why`, if the set could not be scored. The reason may stand on a public
    card: it names no places.
    """

    name: str
    evaluation: Evaluation | None
    why: str = ""


@dataclass(frozen=True)
class GateResult:
    """The verdict of a gate, with every check. `reason` is set if nothing could be checked.

    `champion` is the digest of the adapter that was compared as champion, None without one.
    """

    passed: bool
    judged: str
    metric: str
    conversations: int
    champion_state: ChampionState
    champion: str | None = None
    checks: list[Check] = field(default_factory=list)
    reason: str | None = None

    @property
    def failures(self) -> list[Check]:
        """The checks that were not passed."""
        return [check for check in self.checks if check.passed is False]

    def verdict(self) -> str:
        """Return the verdict as a sentence."""
        if self.reason is not None:
            return f"{self.judged} did not pass the gate: {self.reason}"
        count = sum(check.passed is not None for check in self.checks)
        if self.passed and not count and self.champion_state == "itself":
            return f"{self.judged} passed the gate: {NOTHING_TO_COMPARE['itself']}"
        conversations = number_of(self.conversations, "conversation", "conversations")
        what = f"{number_of(count, 'check', 'checks')} on {conversations}"
        if self.passed:
            return f"{self.judged} passed the gate: {what}"
        return f"{self.judged} did not pass the gate: {len(self.failures)} of {what} failed"

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON types, with the verdict as a sentence."""
        return {"verdict": self.verdict(), **asdict(self)}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "GateResult":
        """Return the result that `to_json` wrote; raise DamagedError if it is none."""
        try:
            known = {key: value for key, value in plain.items() if key != "verdict"}
            checks = [Check(**check) for check in known["checks"]]
            return GateResult(**{**known, "checks": checks})
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedError(
                f"{FILE} is not one that this version of recap reads "
                f"({type(error).__name__}: {error}): evaluate again"
            ) from error


def judge(
    gate: GateSection,
    evaluation: Evaluation,
    older_sets: Sequence[OlderSet] = (),
    champion_state: ChampionState = "not named",
    champion: str | None = None,
    lost: Mapping[str, float] = NOTHING_LOST,
) -> GateResult:
    """Judge the first system of an evaluation.

    `gate` has its defaults filled in, as `resolved_gate` does. `lost` is what is taken from the
    margin of a check, by its name: what the champion lost to the best one before it. Fewer than
    MIN_CONVERSATIONS never pass. Neither does a system that was compared with no opponent, unless
    it is the champion already.
    """
    checks: list[Check] = []
    demands: list[tuple[Rule, str, float]] = []
    demands += [("better", name, 0.0) for name in gate.better_than or []]
    demands += [("no worse", name, gate.margin) for name in gate.no_worse_than or []]
    for rule, name, margin in demands:
        for found in _opponents(evaluation, name):
            check = _compare(evaluation, gate.metric, rule, found, margin)
            used = lost.get(check.name, 0.0)
            if used:
                left = _left(margin, used)
                check = _compare(evaluation, gate.metric, rule, found, left, used)
            checks.append(check)
        if not _opponents(evaluation, name):
            checks.append(_absent(rule, name, gate.metric, margin, champion_state))
    has_beaten = any(check.passed for check in checks)

    for name, allowed in (gate.guards or {}).items():
        checks.append(_guard(evaluation, name, allowed))
    checks += _older_checks(gate, older_sets, champion_state, lost)
    failed = any(check.passed is False for check in checks)
    is_shown = has_beaten or champion_state == "itself"
    reason = None
    if not is_shown and not failed:
        reason = "there was nobody to compare it with; name floors or base in publish.gate"
    return GateResult(
        is_shown and not failed,
        evaluation.judged,
        gate.metric,
        evaluation.conversations,
        champion_state,
        champion,
        checks,
        reason,
    )


def not_scored(judged: str, gate: GateSection, why: str) -> GateResult:
    """Return the result of a gate for an adapter without scores: it did not pass."""
    reason = f"it has no scores: {why}"
    return GateResult(False, judged, gate.metric, 0, "not named", reason=reason)


def _opponents(evaluation: Evaluation, name: str) -> list[str]:
    """Return the systems that a name of the gate stands for."""
    found = []
    for system in evaluation.differences:
        kind = evaluation.systems[system].kind
        if kind == KINDS.get(name) or (kind == "other" and system == name):
            found.append(system)
    return found


def _compare(
    evaluation: Evaluation,
    metric_name: str,
    rule: Rule,
    opponent: str,
    margin: float,
    used: float = 0.0,
) -> Check:
    """Return the check of a paired difference: its interval above 0, or from -margin on.

    `used` is what champions have lost before, which the margin is already without.
    """
    against = system_phrase(evaluation, opponent)
    demand = "better than" if rule == "better" else "no worse than"
    name = f"{demand} {against}"
    gain = _gain(evaluation, metric_name, opponent)
    if gain is None:
        sentence = f"it is not known if {evaluation.judged} is {name}: {_no_value(metric_name)}"
        return Check(name, opponent, metric_name, rule, margin, False, sentence)

    is_above = gain.low > 0 if rule == "better" else gain.low >= -margin - ROUNDING
    is_enough = gain.conversations >= MIN_CONVERSATIONS
    passed = is_above and is_enough
    sentence = f"{evaluation.judged} is {'' if passed else 'not shown to be '}{name}: "
    sentence += shown_difference(gain)
    if not is_enough:
        conversations = number_of(gain.conversations, "conversation", "conversations")
        sentence += f", of {conversations}; fewer than {MIN_CONVERSATIONS} never pass"
    elif not passed:
        limit = "above 0" if rule == "better" else f"from {-margin + 0.0:g}"
        sentence += f", and the interval must be {limit}"
        sentence += f", as {used:.3f} were lost before" if used else ""
    return _with_gain(Check(name, opponent, metric_name, rule, margin, passed, sentence), gain)


def _absent(rule: Rule, name: str, metric: str, margin: float, state: ChampionState) -> Check:
    """Return the check of an opponent that has no summaries."""
    demand = "better than" if rule == "better" else "no worse than"
    title = f"{demand} {'the champion' if name == 'champion' else name}"
    if name == "champion" and state in NOTHING_TO_COMPARE:
        why = NOTHING_TO_COMPARE[state]
        return Check(title, name, metric, rule, margin, None, f"{title}: {why}")
    sentence = f"{title}: it was not scored, so nothing is known"
    return Check(title, name, metric, rule, margin, False, sentence)


def _left(margin: float, lost: float) -> float:
    """Return what is left of a margin after what champions before have used of it."""
    return round(max(0.0, margin - lost), 6)


def _guard(evaluation: Evaluation, metric_name: str, allowed: float) -> Check:
    """Return the check that the mean by a metric is at most `allowed` worse than the champion's.

    What a champion is already worse than people is taken from that, so that the steps of many
    adapters do not add up. The mean decides, not the interval: a guard finds what broke. By its
    interval, a rare event on some hundred conversations would stop most adapters that are as good
    as the champion.
    """
    champion = next(iter(_opponents(evaluation, "champion")), None)
    gain = _gain(evaluation, metric_name, champion) if champion else None
    if champion is None or gain is None:
        return _guard_of_the_first(evaluation, metric_name, allowed)
    people = _gain(evaluation, metric_name, _people(evaluation))
    fixed = people or _gain_over_the_best(evaluation, metric_name)
    behind = max(0.0, gain.mean - fixed.mean) if fixed else 0.0
    limit = f"at most {allowed:g} allowed"
    if behind > ROUNDING:
        whom = "people" if people else "the best there is"
        limit += f" beside {whom}, and the champion has used {min(behind, allowed):.3f} of it"
    left = max(0.0, allowed - behind)
    name = f"{title_of(metric_name)}, against {system_phrase(evaluation, champion)}"
    passed = gain.mean >= -left - ROUNDING
    sentence = _guard_sentence(evaluation, metric_name, gain, champion, limit)
    check = Check(name, champion, metric_name, "guard", round(left, 6), passed, sentence)
    return _with_gain(check, gain)


def _guard_of_the_first(evaluation: Evaluation, metric_name: str, allowed: float) -> Check:
    """Return the check of a guard without a champion: against people, or the best value."""
    people = _people(evaluation)
    gain = _gain(evaluation, metric_name, people)
    title = title_of(metric_name)
    name = f"{title}, against {system_phrase(evaluation, people)}"
    limit = f"at most {allowed:g} allowed"
    if gain is not None:
        sentence = _guard_sentence(evaluation, metric_name, gain, people, limit)
    else:
        people, name = "the best value", f"{title}, against its best value"
        gain = _gain_over_the_best(evaluation, metric_name)
        if gain is None:
            sentence = f"this guard cannot be used on these conversations: {_no_value(metric_name)}"
            return Check(name, people, metric_name, "guard", allowed, False, sentence)
        sentence = (
            f"{title}: {evaluation.judged} is {abs(gain.mean):.3f} from the best value that there "
            f"is ({limit})"
        )
    passed = gain.mean >= -allowed - ROUNDING
    return _with_gain(Check(name, people, metric_name, "guard", allowed, passed, sentence), gain)


def _guard_sentence(
    evaluation: Evaluation, metric_name: str, gain: Interval, opponent: str, limit: str
) -> str:
    state = "is no worse" if gain.mean >= -ROUNDING else f"is worse by {-gain.mean:.3f}"
    against = system_phrase(evaluation, opponent)
    return f"{title_of(metric_name)}: {evaluation.judged} {state} than {against} ({limit})"


def _no_value(metric_name: str) -> str:
    """Return the words for a metric without a value, and why it may have none."""
    metric = metric_named(metric_name)
    where = metric.no_value_where if metric else ""
    reason = f", which has none where {where}" if where else ""
    return f"no value of {title_of(metric_name)}{reason}"


def _people(evaluation: Evaluation) -> str:
    """Return the name of the human references."""
    kinds = {system: found.kind for system, found in evaluation.systems.items()}
    return next(system for system, kind in kinds.items() if kind == "human")


def _older_checks(
    gate: GateSection,
    older_sets: Sequence[OlderSet],
    state: ChampionState,
    lost: Mapping[str, float],
) -> Iterator[Check]:
    for older in older_sets:
        name = f"older set {older.name}"
        if state in NOTHING_TO_COMPARE:
            sentence = f"{name}: {NOTHING_TO_COMPARE[state]}"
            yield Check(name, "champion", gate.metric, "older set", gate.margin, None, sentence)
        elif older.evaluation is None or not _opponents(older.evaluation, "champion"):
            sentence = f"{name}: {older.why or 'the champion was not scored on it'}"
            yield Check(name, "champion", gate.metric, "older set", gate.margin, False, sentence)
        else:
            (champion,) = _opponents(older.evaluation, "champion")
            used = lost.get(name, 0.0)
            margin = _left(gate.margin, used)
            check = _compare(older.evaluation, gate.metric, "older set", champion, margin, used)
            yield replace(check, name=name, sentence=f"{name}: {check.sentence}")


def _gain(evaluation: Evaluation, metric_name: str, opponent: str) -> Interval | None:
    """Return the paired difference so that more is better; None if it has no value."""
    metric = metric_named(metric_name)
    if metric is None:
        return None
    difference = mean_difference(evaluation, opponent, metric)
    return None if difference is None else _finite(difference, metric)


def _gain_over_the_best(evaluation: Evaluation, metric_name: str) -> Interval | None:
    """Return the judged system's distance from the best value that the metric has.

    It stands in where the opponent has none: nobody says if a reference was cut, but none was.
    """
    metric = metric_named(metric_name)
    score = mean_score(evaluation, evaluation.judged, metric) if metric else None
    if metric is None or score is None:
        return None
    best = metric.high if metric.direction == "higher" else metric.low
    low, high = score.low - best, score.high - best
    return _finite(Interval(score.mean - best, low, high, score.conversations), metric)


def _finite(interval: Interval, metric: Metric) -> Interval | None:
    """Return the interval as a gain, None for NaN and for metrics without a better direction."""
    bounds = (interval.mean, interval.low, interval.high)
    if metric.direction == "neither" or any(value != value for value in bounds):
        return None
    if metric.direction == "higher":
        return interval
    return Interval(-interval.mean, -interval.high, -interval.low, interval.conversations)


def _with_gain(check: Check, gain: Interval) -> Check:
    return replace(check, value=gain.mean, low=gain.low, high=gain.high)


def recorded(evaluation: Evaluation) -> GateResult | None:
    """Return the verdict that an evaluation has; None without a gate."""
    return None if evaluation.gate is None else GateResult.from_json(evaluation.gate)


def write_gate(folder: Path, result: GateResult | None) -> None:
    """Write gate.json to a folder of this machine; nothing without a gate."""
    if result is not None:
        text = json.dumps(result.to_json(), indent=2, ensure_ascii=False)
        (folder / FILE).write_text(f"{text}\n", encoding="utf-8")
