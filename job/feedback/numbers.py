"""The numbers of a report: counts of verdicts by adapter, night and agent, corrections, and bias.

They are what feedback.json has. The screen and the page show them, and compute nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.evaluation.bootstrap import wilson
from job.feedback.corrections import KINDS, Correction, correction_of, usual_words
from job.feedback.datasets import Datasets, Split
from job.feedback.held_out import EvaluationSet, count_leaks
from job.feedback.join import Joined, Judged, Opinion
from job.feedback.nights import Night, Written
from job.feedback.verdicts import REASONS

MAX_EXAMPLES = 3  # of each reason and of conflicts
DIGEST_DIGITS = 12
BASE_ALONE = "base alone"
UNNAMED = "unnamed"  # agents that the files do not name
QUARTERS = 4

Edits = Mapping[tuple[int, str, str], Correction]  # by night, digest of the line, and text


@dataclass
class Tally:
    """Opinions on some summaries, and the distances of their corrections."""

    judged: int = 0
    up: int = 0
    down: int = 0
    edited: int = 0
    conflicts: int = 0
    shares: list[float] = field(default_factory=list)

    def add(self, opinion: Opinion, corrections: Sequence[Correction]) -> None:
        """Count one opinion."""
        self.up += opinion.verdict == "up"
        self.down += opinion.verdict == "down"
        self.edited += opinion.edited is not None
        self.shares += [correction.share for correction in corrections]

    def to_json(self) -> dict[str, Any]:
        """Return the counts, the share of thumbs up with its 95% interval, and the mean share."""
        thumbs = self.up + self.down
        share = wilson(self.up, thumbs) if thumbs else None
        return {
            "judged": self.judged,
            "up": self.up,
            "down": self.down,
            "edited": self.edited,
            "conflicts": self.conflicts,
            "up_share": _rounded((share.mean, share.low, share.high)) if share else None,
            "changed_share": _rounded([float(np.mean(self.shares))])[0] if self.shares else None,
        }


def correct_all(judged: Iterable[Judged]) -> Edits:
    """Return what each edit changed."""
    found: dict[tuple[int, str, str], Correction] = {}
    for each in judged:
        for edit in each.edits:
            key = (each.line.night, each.line.digest, edit)
            found[key] = correction_of(each.line.summary, edit, each.shown)
    return found


def corrections_of(each: Judged, opinion: Opinion, edits: Edits) -> list[Correction]:
    """Return the correction of an opinion, in a list that is empty without one."""
    if opinion.edited is None:
        return []
    return [edits[(each.line.night, each.line.digest, opinion.edited)]]


def numbers_of(
    joined: Joined, nights: Sequence[Night], written: Written, edits: Edits
) -> dict[str, Any]:
    """Return everything that the report says of the verdicts, as JSON types."""
    judged = joined.judged
    return {
        "rows": joined.rows,
        "joined_rows": joined.joined_rows,
        "unmatched": _unmatched(joined),
        "unknown_times": _unknown_times(joined),
        "judged": len(judged),
        "opinions": sum(len(each.opinions) for each in judged),
        "all": _tallies(judged, edits, lambda each, _: "all").get("all", Tally()).to_json(),
        "unchanged_edits": sum(one.is_unchanged for each in judged for one in each.opinions),
        "edited_differently": sum(len(each.edits) > 1 for each in judged),
        "conflicts": _conflicts(judged),
        "adapters": _by_adapter(judged, written, edits),
        "nights": _by_night(judged, nights, written, edits),
        "weeks": _groups(_tallies(judged, edits, lambda each, _: each.week or "undated")),
        "agents": _by_agent(judged, edits),
        "corrections": _corrections(list(edits.values())),
        "bias": _bias(judged, nights, written),
    }


def numbers_of_data(
    datasets: Datasets, split: Split, sets: Sequence[EvaluationSet]
) -> dict[str, Any]:
    """Return everything that the report says of the data, as JSON types."""
    known = [{"name": one.name, "conversations": len(one.conversations)} for one in sets]
    return {
        "evaluation_sets": known,
        "data": datasets.counts(),
        "thumbs_to_train": datasets.thumbs_to_train(),
        "left_out": dict(datasets.left_out),
        "test_weeks": list(split.test_weeks),
        "conversations_of_test_pairs": datasets.test_pairs(),
        "leaks": count_leaks(list(split.leaks.values())),
        "earlier_conversations_in_test": split.in_test,
    }


def _tallies(
    judged: Iterable[Judged], edits: Edits, name_of: Callable[[Judged, Opinion], str]
) -> dict[str, Tally]:
    """Return the tally of each group, in the order of their names."""
    found: dict[str, Tally] = {}
    for each in judged:
        counted = set()
        for opinion in each.opinions:
            name = name_of(each, opinion)
            tally = found.setdefault(name, Tally())
            tally.add(opinion, corrections_of(each, opinion, edits))
            if name not in counted:
                tally.judged += 1
                tally.conflicts += each.is_conflict
            counted.add(name)
    return dict(sorted(found.items()))


def _groups(tallies: Mapping[str, Tally]) -> list[dict[str, Any]]:
    return [{"name": name, **tally.to_json()} for name, tally in tallies.items()]


def _by_adapter(judged: Sequence[Judged], written: Written, edits: Edits) -> list[dict[str, Any]]:
    summaries: Counter[str] = Counter()
    for (_, adapter), count in written.counts.items():
        summaries[_adapter(adapter)] += count
    tallies = _tallies(judged, edits, lambda each, _: _adapter(each.line.adapter))
    names = sorted({*summaries, *tallies})
    return [
        {"name": name, "summaries": summaries[name], **tallies.get(name, Tally()).to_json()}
        for name in names
    ]


def _adapter(digest: str | None) -> str:
    return digest[:DIGEST_DIGITS] if digest else BASE_ALONE


def _by_night(
    judged: Sequence[Judged], nights: Sequence[Night], written: Written, edits: Edits
) -> list[dict[str, Any]]:
    tallies = _tallies(judged, edits, lambda each, _: str(each.line.night))
    found = []
    for number, night in enumerate(nights):
        facts = {"name": night.name, "summaries": len(written.characters[number])}
        found.append(facts | tallies.get(str(number), Tally()).to_json())
    return found


def _by_agent(judged: Sequence[Judged], edits: Edits) -> list[dict[str, Any]]:
    """Return the agents, those with most opinions first."""
    groups = _groups(_tallies(judged, edits, lambda _, opinion: opinion.by or UNNAMED))
    return sorted(groups, key=lambda group: (-group["judged"], group["name"]))


def _unmatched(joined: Joined) -> list[dict[str, Any]]:
    """Return the reasons that occur, each with its number and some examples."""
    found = []
    for reason in REASONS:
        rows = [row for row in joined.unmatched if row.reason == reason]
        if rows:
            examples = [f"{row.source}: {row.detail}" for row in rows[:MAX_EXAMPLES]]
            found.append({"reason": reason, "rows": len(rows), "examples": examples})
    return found


def _unknown_times(joined: Joined) -> dict[str, Any]:
    """Return the number of joined rows whose time cannot be read, with some examples."""
    found = joined.unknown_times
    return {"rows": len(found), "examples": [str(source) for source in found[:MAX_EXAMPLES]]}


def _conflicts(judged: Sequence[Judged]) -> dict[str, Any]:
    several = [each for each in judged if len(each.opinions) > 1]
    conflicts = [each for each in several if each.is_conflict]
    examples = []
    for each in conflicts[:MAX_EXAMPLES]:
        said = [f"{one.by or UNNAMED} {_said(one)}" for one in each.opinions]
        examples.append(f"{each.line.id}: {', '.join(said)}")
    return {"judged_by_several": len(several), "conflicts": len(conflicts), "examples": examples}


def _said(opinion: Opinion) -> str:
    parts: list[str] = [opinion.verdict] if opinion.verdict else []
    if opinion.edited is not None:
        parts.append("edited")
    return " and ".join(parts) or "saved it unchanged"


def _corrections(corrections: Sequence[Correction]) -> dict[str, Any]:
    if not corrections:
        return {"count": 0, "words": None, "share": None, "kinds": [], "added": [], "removed": []}
    counts = Counter(kind for each in corrections for kind in each.kinds)
    kinds = [{"kind": kind, "count": counts[kind]} for kind in KINDS if counts[kind]]
    return {
        "count": len(corrections),
        "words": _spread([each.distance for each in corrections]),
        "share": _spread([each.share for each in corrections]),
        "kinds": sorted(kinds, key=lambda kind: -counts[kind["kind"]]),
        "added": [list(pair) for pair in usual_words(each.added for each in corrections)],
        "removed": [list(pair) for pair in usual_words(each.removed for each in corrections)],
    }


def _bias(judged: Sequence[Judged], nights: Sequence[Night], written: Written) -> dict[str, Any]:
    """Return who answers, and how what was judged differs from all that was written."""
    opinions = [one for each in judged for one in each.opinions]
    named = Counter(one.by for one in opinions if one.by)
    most = named.most_common(1)
    characters = np.concatenate([np.frombuffer(each, np.uint32) for each in written.characters])
    tokens = np.concatenate([np.frombuffer(each, np.uint32) for each in written.input_tokens])
    judged_characters = [len(each.line.summary) for each in judged]
    judged_tokens = [each.line.input_tokens for each in judged]
    return {
        "summaries": len(characters),
        "judged_share": _rounded([len(judged) / len(characters)])[0] if len(characters) else None,
        "nights_without_verdicts": len(nights) - len({each.line.night for each in judged}),
        "agents": len(named),
        "most_active_agent_share": _rounded([most[0][1] / len(opinions)])[0] if most else None,
        "unnamed_opinions": sum(not one.by for one in opinions),
        "characters": {"judged": _spread(judged_characters), "all": _spread(characters)},
        "input_tokens": {"judged": _spread(judged_tokens), "all": _spread(tokens)},
        "by_length": _by_length(tokens, judged_tokens),
    }


def _by_length(tokens: NDArray[Any], judged: Sequence[int]) -> list[dict[str, Any]]:
    """Return the share of summaries that were judged in each quarter of input lengths."""
    if not len(tokens):
        return []
    edges = np.percentile(tokens, np.linspace(0, 100, QUARTERS + 1))

    def count(values: Sequence[int] | NDArray[Any]) -> list[int]:
        quarters = np.searchsorted(edges[1:-1], values, side="right")
        return [int(number) for number in np.bincount(quarters, minlength=QUARTERS)]

    found = []
    counts = zip(count(judged), count(tokens), strict=True)
    for quarter, (of_judged, of_all) in enumerate(counts):
        share = _rounded([of_judged / of_all])[0] if of_all else None
        low, high = int(edges[quarter]), int(edges[quarter + 1])
        found.append({"from": low, "to": high, "judged": of_judged, "share": share})
    return found


def _spread(values: Sequence[float] | NDArray[Any]) -> dict[str, float] | None:
    if not len(values):
        return None
    p10, median, p90 = np.percentile(values, [10, 50, 90])
    numbers = _rounded((float(np.mean(values)), float(p10), float(median), float(p90)))
    return dict(zip(("mean", "p10", "median", "p90"), numbers, strict=True))


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]
