"""Which of two adapters the agents would have kept: win rate and distance on held-out pairs.

Both have summarized the conversations of the pairs. Of a pair, the one wins whose summary is nearer
to the agent's edit, by the edit distance in words, and a tie is half a win. No model judges.
Conversations were drawn at random, so several pairs of one count by their mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from job.config.gate_sections import MIN_CONVERSATIONS, PairsSection
from job.errors import DamagedError
from job.evaluation.bootstrap import Interval, mean_intervals, paired_differences
from job.evaluation.distances import changed_share
from job.evaluation.evaluate import SEED
from job.evaluation.gate import NOTHING_TO_COMPARE, ChampionState, Check, GateResult
from job.evaluation.held_out_pairs import HeldOutPair, HeldOutPairs
from job.evaluation.result import shown_difference
from job.evaluation.systems import BASE, CHAMPION
from job.pages.charts import Table
from job.printable import number_of

WIN_RATE = "win rate"
EDIT_DISTANCE = "distance to edits"
HALF = 0.5
ROUNDING = 1e-9  # of sums of floats


@dataclass(frozen=True)
class PairsResult:
    """The judged adapter and its opponent on held-out pairs.

    `wins`, `ties` and `losses` count pairs; `win_rate` and `gain` are means over conversations with
    their 95% intervals. `gain` is the opponent's distance to the edits minus the judged one's.
    Distances are shares of words: `shown` is that of what agents had read, and `shown_again` counts
    the pairs of which the opponent has written just that. `why` is set if nothing was compared.
    """

    opponent: str
    pairs: int
    conversations: int
    wins: int = 0
    ties: int = 0
    losses: int = 0
    win_rate: Interval | None = None
    gain: Interval | None = None
    judged_distance: float | None = None
    opponent_distance: float | None = None
    shown_distance: float | None = None
    shown_again: int = 0
    why: str = ""

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "PairsResult":
        """Return the result that an evaluation has; raise DamagedError if it is none."""
        try:
            read = {
                key: None if plain[key] is None else Interval(**plain[key])
                for key in ("win_rate", "gain")
            }
            return PairsResult(**{**plain, **read})
        except (KeyError, TypeError) as error:
            raise DamagedError(
                "the pairs of evaluation.json are not those of this version of recap "
                f"({type(error).__name__}: {error}): evaluate again"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        return asdict(self)

    def key_numbers(self) -> dict[str, Any]:
        """Return what a champion's pointer has of it: intervals as lists of mean, low and high."""
        found = {"win_rate": self.win_rate, "gain": self.gain}
        shown = {
            name: None if value is None else [value.mean, value.low, value.high]
            for name, value in found.items()
        }
        return {
            "opponent": self.opponent,
            "pairs": self.pairs,
            "conversations": self.conversations,
            **shown,
        }


def compare_on_pairs(
    pairs: HeldOutPairs,
    judged: Sequence[str],
    opponent: Sequence[str],
    name: str,
    samples: int,
) -> PairsResult:
    """Compare the summaries of two adapters, one of each conversation, with the edits.

    `name` is that of the opponent, `samples` the number of resamples.
    """
    own = [changed_share(judged[pair.conversation], pair.chosen) for pair in pairs.pairs]
    others = [changed_share(opponent[pair.conversation], pair.chosen) for pair in pairs.pairs]
    shown = [changed_share(pair.rejected, pair.chosen) for pair in pairs.pairs]
    again = [opponent[pair.conversation].split() == pair.rejected.split() for pair in pairs.pairs]
    points = [_points(left, right) for left, right in zip(own, others, strict=True)]
    by_conversation = np.array(
        [means_by_conversation(pairs.pairs, values) for values in (points, own, others)]
    )  # (3, conversations)
    (rate,) = mean_intervals(by_conversation[0][:, None], samples, SEED, [True])
    (gain,) = paired_differences(
        by_conversation[2][:, None], by_conversation[1][:, None], samples, SEED
    )
    return PairsResult(
        name,
        len(pairs.pairs),
        len(pairs.conversations),
        wins=points.count(1.0),
        ties=points.count(HALF),
        losses=points.count(0.0),
        win_rate=None if rate is None else within(rate, 0.0, 1.0),
        gain=None if gain is None else within(gain, -1.0, 1.0),
        judged_distance=float(np.mean(by_conversation[1])),
        opponent_distance=float(np.mean(by_conversation[2])),
        shown_distance=float(np.mean(means_by_conversation(pairs.pairs, shown))),
        shown_again=sum(again),
    )


def _points(own: float, other: float) -> float:
    if own == other:
        return HALF
    return 1.0 if own < other else 0.0


def means_by_conversation(pairs: Sequence[HeldOutPair], values: Sequence[float]) -> list[float]:
    """Return the mean of each conversation's pairs."""
    grouped: dict[int, list[float]] = {}
    for pair, value in zip(pairs, values, strict=True):
        grouped.setdefault(pair.conversation, []).append(value)
    return [float(np.mean(grouped[number])) for number in sorted(grouped)]


def within(interval: Interval, low: float, high: float) -> Interval:
    """Return the interval, which ends where the range of its values does."""
    return replace(interval, low=max(interval.low, low), high=min(interval.high, high))


def with_pairs(
    verdict: GateResult, section: PairsSection, result: PairsResult, used: float = 0.0
) -> GateResult:
    """Return the verdict with two checks more: the win rate, and the agreement with the edits.

    `used` is what champions have lost of the margin before.
    """
    checks = [
        _win_check(verdict, section, result),
        _agreement_check(verdict, section, result, used),
    ]
    failed = any(check.passed is False for check in checks)
    return replace(verdict, passed=verdict.passed and not failed, checks=[*verdict.checks, *checks])


def agreement_name(opponent: str) -> str:
    """Return the name of the check of distances, by which a pointer records its gain."""
    return f"as near to agents' edits as {_phrase(opponent)}"


def _win_check(verdict: GateResult, section: PairsSection, result: PairsResult) -> Check:
    against = _phrase(result.opponent)
    name = f"nearer to agents' edits than {against}"
    margin = HALF - section.min_win_rate
    check = Check(name, result.opponent, WIN_RATE, "win rate", margin, None, "")
    unknown = _without_numbers(check, verdict.champion_state, result)
    if unknown is not None or result.win_rate is None:
        return unknown or replace(check, passed=False, sentence=f"{name}: nothing is known")
    rate = result.win_rate
    is_above = rate.low > section.min_win_rate
    is_enough = rate.conversations >= MIN_CONVERSATIONS
    wins = (
        f"it wins {result.wins} of {number_of(result.pairs, 'pair', 'pairs')}, with "
        f"{number_of(result.ties, 'tie', 'ties')}: a win rate of {shown_rate(rate)} on "
        f"{number_of(result.conversations, 'conversation', 'conversations')}"
    )
    state = "is" if is_above and is_enough else "is not shown to be"
    sentence = f"{verdict.judged} {state} {name}: {wins}{_stand_in(verdict, result)}"
    if not is_enough:
        sentence += f"; fewer than {MIN_CONVERSATIONS} never pass"
    elif not is_above:
        sentence += f", and the interval must be above {section.min_win_rate:g}"
    return replace(
        check,
        passed=is_above and is_enough,
        sentence=sentence,
        value=rate.mean,
        low=rate.low,
        high=rate.high,
    )


def _agreement_check(
    verdict: GateResult, section: PairsSection, result: PairsResult, used: float
) -> Check:
    name = agreement_name(result.opponent)
    margin = round(max(0.0, section.margin - used), 6)
    check = Check(name, result.opponent, EDIT_DISTANCE, "agreement", margin, None, "")
    unknown = _without_numbers(check, verdict.champion_state, result)
    if unknown is not None or result.gain is None:
        return unknown or replace(check, passed=False, sentence=f"{name}: nothing is known")
    gain = result.gain
    passed = gain.low >= -margin - ROUNDING and gain.conversations >= MIN_CONVERSATIONS
    state = "is" if passed else "is not shown to be"
    sentence = (
        f"{verdict.judged} {state} {name}: agents would change {result.judged_distance:.0%} of its "
        f"words, and {result.opponent_distance:.0%} of the other's; gain {shown_difference(gain)}"
    )
    if gain.conversations < MIN_CONVERSATIONS:
        sentence += f"; fewer than {MIN_CONVERSATIONS} conversations never pass"
    elif not passed:
        sentence += f", and the interval must be from {-margin + 0.0:g}"
        sentence += f", as {used:.3f} were lost before" if used else ""
    return replace(
        check, passed=passed, sentence=sentence, value=gain.mean, low=gain.low, high=gain.high
    )


def _without_numbers(check: Check, state: ChampionState, result: PairsResult) -> Check | None:
    """Return the check of what was not compared, and None if it was."""
    if state == "itself":
        sentence = f"{check.name}: {NOTHING_TO_COMPARE[state]}"
        return replace(check, sentence=sentence)
    if result.why:
        return replace(check, passed=False, sentence=f"{check.name}: {result.why}")
    return None


def _stand_in(verdict: GateResult, result: PairsResult) -> str:
    """Return the clause that the base stands in for a champion."""
    if result.opponent == CHAMPION:
        return ""
    why = "is none yet" if verdict.champion_state == "none yet" else "is none named"
    return f" (the base is the opponent, as there {why} as champion)"


def _phrase(opponent: str) -> str:
    return "the base" if opponent == BASE else f"the {opponent}"


def pairs_table(result: PairsResult, judged: str) -> Table:
    """Return the result as a table for people."""
    head = ("", judged, result.opponent, "what agents had read")
    if result.win_rate is None or result.gain is None:
        return Table(head, [], result.why)
    lost = (result.opponent_distance, result.shown_distance)
    rows = [
        ("pairs won", str(result.wins), str(result.losses), ""),
        ("words that agents would change", *map(_share, (result.judged_distance, *lost))),
    ]
    note = (
        f"Win rate {shown_rate(result.win_rate)}, with {number_of(result.ties, 'tie', 'ties')} as "
        f"half a win; gain in distance {shown_difference(result.gain)}. {result.pairs:,} pairs of "
        f"{number_of(result.conversations, 'conversation', 'conversations')}."
    )
    if result.shown_again:
        note += (
            f" Of {number_of(result.shown_again, 'pair', 'pairs')}, the {result.opponent} has "
            "written again what agents had read, word for word: edits begin there, so this favors "
            f"the {result.opponent}."
        )
    return Table(head, rows, note)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def shown_rate(rate: Interval) -> str:
    """Return a win rate with its interval."""
    if not rate.is_known:
        return f"{rate.mean:.2f}"
    return f"{rate.mean:.2f} [{rate.low:.2f}, {rate.high:.2f}]"
