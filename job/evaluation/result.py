"""The result of an evaluation, and the sentences about it.

`Evaluation` is written as evaluation.json. The terminal, the report and the model card share the
sentences, so that none of them claims more than the numbers show.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from job.config.gate_sections import MIN_CONVERSATIONS
from job.errors import DamagedError
from job.evaluation.bootstrap import Interval
from job.evaluation.metrics.agreement import UNCALIBRATED, Agreement
from job.evaluation.metrics.all_metrics import HEADLINE, available_metrics
from job.evaluation.metrics.metric import Metric
from job.printable import number_of

LEAD = "lead-2"  # the floor whose name takes no article
COLLAPSED_SHARE = 0.5  # of the conversations, with one and the same summary
MIN_OF_A_SHARE = 10  # conversations; a share of fewer says little
EQUAL_SHARE = 0.1  # of the summaries that are a reference; people hardly write the same

HOW_TO_SCORE = "Nothing is known of its summaries: `recap evaluate` can score the adapter."

Kind = Literal["judged", "as_trained", "base", "champion", "other", "floor", "human"]
KINDS_IN_ORDER = ("floor", "base", "as_trained", "champion", "other", "human")  # of comparisons
Intervals = dict[str, dict[str, Interval]]  # metric → aggregation → interval
Verdict = Literal["beats", "loses to", "cannot be told apart from", "too few conversations"]


@dataclass(frozen=True)
class Lengths:
    """Words per text (`words.length`): mean, 10th percentile, median, 90th percentile."""

    mean: float
    p10: float
    median: float
    p90: float


@dataclass(frozen=True)
class SystemResult:
    """One system: scores, lengths, and the signs of a model that stopped reading.

    `origin` says in words where its summaries come from, and `serving` how they were generated, if
    they were generated here. `scores` has a metric only if it could be measured, and aggregations
    over references only of metrics that compare with references.
    """

    kind: Kind
    origin: str
    serving: Mapping[str, Any] | None
    conversations: int
    scores: Intervals
    words: Lengths
    most_common: str
    most_common_share: float  # of the conversations that got the most common summary


@dataclass(frozen=True)
class Evaluation:
    """Every number of an evaluation.

    `differences` are the judged system minus the named one, on the conversations for which both
    have a score. `unreadable_references` have no word with a letter: a number at most decides the
    score against them. `tokenizer` names the rules that cut text into words; scores by other rules
    cannot be compared. `models` has what is known of the model of each metric that needs one.
    `departures` are differences from the settings that the adapter carries.
    `gate` is `GateResult.to_json()`, None without a gate; `pairs` is `PairsResult.to_json()`, None
    where no held-out pairs were compared. `repeated_conversations` have the turns
    of an earlier one, and `equal_to_reference` of the judged system's summaries are a reference of
    their conversation.
    """

    judged: str
    systems: dict[str, SystemResult]
    differences: dict[str, Intervals]
    conversations: int
    conversations_without_reference: int
    references: int
    unreadable_references: int
    reference_words: Lengths
    bootstrap_samples: int
    seed: int
    versions: dict[str, str]
    tokenizer: str
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    departures: list[str] = field(default_factory=list)
    gate: Mapping[str, Any] | None = None
    pairs: Mapping[str, Any] | None = None
    repeated_conversations: int = 0
    equal_to_reference: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON types, numbers with six decimals."""
        plain: dict[str, Any] = _round(asdict(self))
        return plain

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Evaluation":
        """Return the evaluation that `to_json` wrote; raise DamagedError if it is none."""
        try:
            systems = {name: _read_system(system) for name, system in plain["systems"].items()}
            differences = {
                name: _read_intervals(found) for name, found in plain["differences"].items()
            }
            read = {
                "systems": systems,
                "differences": differences,
                "reference_words": Lengths(**plain["reference_words"]),
            }
            return Evaluation(**{**plain, **read})
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedError(
                "evaluation.json is not one that this version of recap reads "
                f"({type(error).__name__}: {error}); evaluate again"
            ) from error


@dataclass(frozen=True)
class NotScored:
    """The reason why a trained adapter has no scores.

    `why` names no person, place or text of a conversation, so that a public card can have it;
    `detail` may.
    """

    why: str
    detail: str


def size_phrase(evaluation: Evaluation) -> str:
    """Return what was scored: `40 conversations with 127 references`."""
    conversations = number_of(evaluation.conversations, "conversation", "conversations")
    return f"{conversations} with {number_of(evaluation.references, 'reference', 'references')}"


def mean_score(evaluation: Evaluation, system: str, metric: Metric = HEADLINE) -> Interval | None:
    """Return a system's score by a metric, its mean over each conversation's references."""
    return evaluation.systems[system].scores.get(metric.name, {}).get("mean")


def metric_title(evaluation: Evaluation, metric: Metric) -> str:
    """Return a metric's title, with the agreement of its classifier with people, if it is known."""
    agreement = _agreement(evaluation, metric)
    if agreement is None:
        return metric.title
    name = metric.title.split(" (")[0]
    return f"{name} ({agreement.note})"


def model_sentences(evaluation: Evaluation) -> list[str]:
    """Return a sentence about the model of each metric that needs one."""
    found = []
    for metric in available_metrics(evaluation.models):
        model = evaluation.models.get(metric.name)
        if model is None:
            continue
        sentence = f"{metric_title(evaluation, metric)} is by {_model_name(model)}"
        agreement = _agreement(evaluation, metric)
        if agreement is not None:
            sentence += f": {agreement.sentence()}"
        elif metric.title.endswith(f"({UNCALIBRATED})"):
            sentence += ": no labels of people say how far it can be trusted"
        found += [f"{sentence}.", *model.get("sentences", [])]
    return found


def mean_difference(
    evaluation: Evaluation, other: str, metric: Metric = HEADLINE
) -> Interval | None:
    """Return the judged system's score minus another one's, if both have one."""
    return evaluation.differences[other].get(metric.name, {}).get("mean")


def best_score(evaluation: Evaluation, metric: Metric) -> float | None:
    """Return the best mean score of the systems that summarize; people are not in the race.

    None for a metric of which neither direction is better.
    """
    scores = [
        score.mean
        for name, system in evaluation.systems.items()
        if system.kind != "human" and (score := mean_score(evaluation, name, metric))
    ]
    if not scores or metric.direction == "neither":
        return None
    return max(scores) if metric.direction == "higher" else min(scores)


def ranked_systems(evaluation: Evaluation) -> list[str]:
    """Return the systems by HEADLINE, best first; those without a score last."""

    def rank(name: str) -> float:
        score = mean_score(evaluation, name)
        return -score.mean if score else 1.0

    return sorted(evaluation.systems, key=rank)


def other_systems(evaluation: Evaluation) -> list[str]:
    """Return the systems that the judged one is compared with: floors first, people last."""
    compared = [name for name in evaluation.differences if mean_difference(evaluation, name)]
    return sorted(compared, key=lambda name: KINDS_IN_ORDER.index(_kind(evaluation, name)))


def floors(evaluation: Evaluation) -> list[str]:
    """Return the names of the floors."""
    return [name for name in evaluation.differences if _kind(evaluation, name) == "floor"]


def verdict(evaluation: Evaluation, other: str, metric: Metric = HEADLINE) -> Verdict:
    """Compare the judged system with another by the interval of their paired difference."""
    difference = mean_difference(evaluation, other, metric)
    if difference is None or difference.conversations < MIN_CONVERSATIONS:
        return "too few conversations"
    gain = difference if metric.direction != "lower" else _negative(difference)
    if gain.low > 0:
        return "beats"
    return "loses to" if gain.high < 0 else "cannot be told apart from"


def comparison_sentence(evaluation: Evaluation, other: str, metric: Metric = HEADLINE) -> str:
    """Return e.g. `tuned beats the constant sentence by 0.124 [0.093, 0.155]`."""
    judged = evaluation.judged
    against = system_phrase(evaluation, other)
    by = mean_difference(evaluation, other, metric)
    if by is None:
        return f"{judged} and {against} have no conversation with a score by {metric.title}"
    match verdict(evaluation, other, metric):
        case "beats":
            return f"{judged} beats {against} by {_amount(by)}"
        case "loses to":
            return f"{judged} loses to {against} by {_amount(by)}"
        case "cannot be told apart from":
            return f"{judged} cannot be told apart from {against}: {shown_difference(by)}"
        case "too few conversations":
            return (
                f"{judged} against {against}: {shown_difference(by)}, but "
                f"{number_of(by.conversations, 'conversation is', 'conversations are')} too few "
                f"to tell (at least {MIN_CONVERSATIONS})"
            )


def system_phrase(evaluation: Evaluation, name: str) -> str:
    """Return a system's name as a sentence has it: `the constant sentence`, `tuned`."""
    match _kind(evaluation, name):
        case "floor" if name == LEAD:
            return name
        case "floor" | "champion":
            return f"the {name}"
        case "human":
            return "the human references"
        case _:
            return name


def warnings(evaluation: Evaluation, quoting: bool = True) -> list[str]:
    """Return what a reader must know before trusting the judged system, a sentence each.

    They quote a summary that most conversations got, unless they are for a public place.
    """
    name = evaluation.judged
    judged = evaluation.systems[name]
    count = evaluation.conversations
    found = []
    unbeaten = [
        system_phrase(evaluation, floor)
        for floor in floors(evaluation)
        if verdict(evaluation, floor) != "beats"
    ]
    if unbeaten:
        found.append(
            f"{name} is not shown to beat {' or '.join(unbeaten)}: a summarizer that reads the "
            "conversation should."
        )
    if judged.most_common_share >= COLLAPSED_SHARE and count >= MIN_OF_A_SHARE:
        said = f"“{shorten(judged.most_common, 120)}”" if judged.most_common else "nothing at all."
        quoted = f" to {said}" if quoting else "."
        found.append(
            f"{name} gave the same summary to {judged.most_common_share:.0%} of the conversations: "
            f"it has collapsed{quoted}"
        )
    empty = judged.scores.get("empty", {}).get("mean")
    if empty and empty.mean:
        number = round(empty.mean * empty.conversations)
        is_one = number == 1
        found.append(f"{number} of {count} summaries by {name} {'is' if is_one else 'are'} empty.")
    repeated = evaluation.repeated_conversations
    if repeated:
        what = number_of(repeated, "conversation repeats", "conversations repeat")
        found.append(f"{what} an earlier one: the intervals are too narrow.")
    if evaluation.equal_to_reference >= EQUAL_SHARE * count:
        found.append(
            f"{evaluation.equal_to_reference} of {count} summaries by {name} are a reference, word "
            "for word: a reference that is compared with itself scores 1."
        )
    found += _worse_than_people(evaluation)
    if evaluation.unreadable_references:
        found.append(
            f"{evaluation.unreadable_references} of {evaluation.references} references have no "
            "word with a letter: no summary in words scores above 0 against them."
        )
    return found


def _worse_than_people(evaluation: Evaluation) -> Iterator[str]:
    """Yield a sentence for each share that should be small and is larger than that of people."""
    name = evaluation.judged
    people = [other for other in evaluation.differences if _kind(evaluation, other) == "human"]
    for metric in available_metrics(evaluation.models):
        if metric.direction != "lower" or metric.name == "empty":
            continue
        for other in people:
            own, theirs = (mean_score(evaluation, who, metric) for who in (name, other))
            if own and theirs and verdict(evaluation, other, metric) == "loses to":
                yield (
                    f"{metric.title}: {shown_value(own.mean, metric)} by {name}, "
                    f"{shown_value(theirs.mean, metric)} by "
                    f"{system_phrase(evaluation, other)}; less is better."
                )


def shown_value(value: float, metric: Metric) -> str:
    """Return a value in the metric's unit."""
    match metric.unit:
        case "share":
            return f"{value:.1%}"
        case "score":
            return f"{value:.3f}"
        case "ratio" | "count":
            return f"{value:.2f}"


def shown_difference(by: Interval) -> str:
    """Return a difference: `+0.041 [+0.028, +0.055]`, without an interval if none is known."""
    if not by.is_known:
        return signed(by.mean)
    return f"{signed(by.mean)} [{signed(by.low)}, {signed(by.high)}]"


def signed(value: float) -> str:
    """Return a number with its sign and three decimals, never -0.000."""
    return f"{round(value, 3) + 0.0:+.3f}"


def shorten(text: str, characters: int) -> str:
    """Return the text on one line, cut with an ellipsis."""
    line = " ".join(text.split())
    if len(line) <= characters:
        return line
    return line[: characters - 1].rstrip() + "…"


def _agreement(evaluation: Evaluation, metric: Metric) -> Agreement | None:
    agreement = evaluation.models.get(metric.name, {}).get("agreement")
    return None if agreement is None else Agreement.from_json(agreement)


def _model_name(model: Mapping[str, Any]) -> str:
    """Return a Hub id with its commit, or a folder's name: a public card shows no bucket."""
    if model["revision"]:
        return f"{model['model'].removeprefix('hf://')} at {model['revision']}"
    name = model["model"].rstrip("/").rsplit("/", 1)[-1]
    return f"{name} (digest {model['digest'][:12]})"


def _kind(evaluation: Evaluation, name: str) -> Kind:
    return evaluation.systems[name].kind


def _negative(interval: Interval) -> Interval:
    return Interval(-interval.mean, -interval.high, -interval.low, interval.conversations)


def _amount(by: Interval) -> str:
    """Return a difference on one side of 0 without its sign."""
    return shown_difference(by if by.mean > 0 else _negative(by)).replace("+", "")


def _read_system(plain: Mapping[str, Any]) -> SystemResult:
    scores = _read_intervals(plain["scores"])
    words = Lengths(**plain["words"])
    return SystemResult(**{**plain, "scores": scores, "words": words})


def _read_intervals(plain: Mapping[str, Any]) -> Intervals:
    intervals: Intervals = {}
    for metric, by_aggregation in plain.items():
        intervals[metric] = {
            aggregation: Interval(**interval) for aggregation, interval in by_aggregation.items()
        }
    return intervals


def _round(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _round(inner) for key, inner in value.items()}
    return round(value, 6) if isinstance(value, float) else value
