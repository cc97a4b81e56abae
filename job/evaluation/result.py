"""The result of an evaluation, and what may be said about it.

Purpose: the record that becomes `evaluation.json` (and comes back from it), and the sentences that the terminal, the
report and the model card share, so that none of them claims more than the numbers do. Knows nothing of how they are
laid out.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from job.errors import DamagedError
from job.evaluation.bootstrap import Interval

CONSTANT, LEAD = "constant sentence", "lead"
HEADLINE = "rougeL"  # the metric of the sentences, its mean over the references
FEWEST_CONVERSATIONS = 10  # below, a percentile bootstrap is far too sure of itself
COLLAPSED_SHARE = 0.5

HOW_TO_SCORE = "Nothing is known of its summaries: `recap evaluate` can score the adapter."

Intervals = dict[str, dict[str, Interval]]  # metric → aggregation over references → interval
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
    """One system: scores, lengths, and the signs of a model that stopped reading."""

    scores: Intervals
    words: Lengths
    empty_summaries: int
    most_common: str
    most_common_share: float  # of the conversations that got the most common summary


@dataclass(frozen=True)
class Evaluation:
    """Every number of an evaluation.

    `differences` are the judged system minus the named one, on the same conversations.
    `unreadable_references` have no word with a letter: a number at most decides the score against
    them. `tokenizer` names the rules that cut text into words; scores by other rules cannot be
    compared.
    """

    judged: str
    systems: dict[str, SystemResult]
    differences: dict[str, Intervals]
    floors_from: dict[str, str]
    conversations: int
    conversations_without_reference: int
    references: int
    unreadable_references: int
    reference_words: Lengths
    bootstrap_samples: int
    seed: int
    versions: dict[str, str]
    tokenizer: str = "rouge-score"  # of evaluations that recorded none

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON types, numbers with six decimals."""
        plain: dict[str, Any] = _rounded(asdict(self))
        return plain

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Evaluation":
        """The evaluation that `to_json` wrote; DamagedError if it is none."""
        try:
            systems = {
                name: SystemResult(
                    **{
                        **system,
                        "scores": _read_intervals(system["scores"]),
                        "words": Lengths(**system["words"]),
                    }
                )
                for name, system in plain["systems"].items()
            }
            differences = {
                name: _read_intervals(found) for name, found in plain["differences"].items()
            }
            lengths = Lengths(**plain["reference_words"])
            return Evaluation(
                **{
                    **plain,
                    "systems": systems,
                    "differences": differences,
                    "reference_words": lengths,
                }
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedError(
                f"evaluation.json is not one that this version of recap wrote ({type(error).__name__}: {error}); "
                "evaluate again"
            ) from error


@dataclass(frozen=True)
class NotScored:
    """The reason why a trained adapter has no scores.

    `why` names no person, place or text of a conversation, so that a public card can have it; `detail`
    may.
    """

    why: str
    detail: str


def ranked_systems(evaluation: Evaluation) -> list[str]:
    """The systems by ROUGE-L, best first."""
    return sorted(
        evaluation.systems, key=lambda name: -evaluation.systems[name].scores[HEADLINE]["mean"].mean
    )


def other_systems(evaluation: Evaluation) -> list[str]:
    """What the judged system is compared with: the floors first, for they are the question."""
    return sorted(evaluation.differences, key=lambda name: name not in (CONSTANT, LEAD))


def verdict(evaluation: Evaluation, other: str) -> Verdict:
    """How the judged system stands to another one, by the interval of their paired difference in ROUGE-L."""
    difference = evaluation.differences[other][HEADLINE]["mean"]
    if evaluation.conversations < FEWEST_CONVERSATIONS:
        return "too few conversations"
    if difference.low > 0:
        return "beats"
    return "loses to" if difference.high < 0 else "cannot be told apart from"


def comparison_sentence(evaluation: Evaluation, other: str) -> str:
    """E.g. `tuned beats the constant sentence by 0.12 [0.09, 0.15]`."""
    difference = evaluation.differences[other][HEADLINE]["mean"]
    judged, against = evaluation.judged, f"the {other}" if other in (CONSTANT, LEAD) else other
    apart = f"{difference.mean:+.2f} [{difference.low:.2f}, {difference.high:.2f}]"
    match verdict(evaluation, other):
        case "beats":
            return f"{judged} beats {against} by {apart.removeprefix('+')}"
        case "loses to":
            return f"{judged} loses to {against} by {-difference.mean:.2f} [{-difference.high:.2f}, {-difference.low:.2f}]"
        case "cannot be told apart from":
            return f"{judged} cannot be told apart from {against}: {apart}"
        case "too few conversations":
            return (
                f"{judged} against {against}: {apart}, but {evaluation.conversations} conversations are too few to "
                f"tell (at least {FEWEST_CONVERSATIONS})"
            )


def warnings(evaluation: Evaluation) -> list[str]:
    """What a reader must know before trusting the judged system; empty when nothing is wrong."""
    judged, count = evaluation.systems[evaluation.judged], evaluation.conversations
    found = []
    unbeaten = [name for name in (CONSTANT, LEAD) if name in evaluation.differences]
    unbeaten = [name for name in unbeaten if verdict(evaluation, name) != "beats"]
    if unbeaten:
        names = " or ".join(f"the {name}" for name in unbeaten)
        found.append(
            f"{evaluation.judged} is not shown to beat {names}: a summarizer that reads the conversation should."
        )
    if judged.most_common_share >= COLLAPSED_SHARE and count >= FEWEST_CONVERSATIONS:
        found.append(
            f"{evaluation.judged} gave the same summary to {judged.most_common_share:.0%} of the conversations: it has "
            f"collapsed to “{shorten(judged.most_common, 120)}”"
        )
    if judged.empty_summaries:
        found.append(
            f"{judged.empty_summaries} of {count} summaries by {evaluation.judged} are empty."
        )
    if evaluation.unreadable_references:
        found.append(
            f"{evaluation.unreadable_references} of {evaluation.references} references have no "
            "word with a letter: nothing but a number scores above 0 against them."
        )
    return found


def shorten(text: str, characters: int) -> str:
    """The text on one line, cut with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"


def _read_intervals(plain: Mapping[str, Any]) -> Intervals:
    return {
        metric: {
            aggregation: Interval(**interval) for aggregation, interval in by_aggregation.items()
        }
        for metric, by_aggregation in plain.items()
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 6) if isinstance(value, float) else value
