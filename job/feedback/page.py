"""The report as one HTML page that needs nothing else: numbers, and some corrections to read.

All text of customers, agents and models is escaped by `job.pages`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from job.feedback.corrections import MEANING, Correction
from job.feedback.join import Joined, Judged
from job.feedback.numbers import Edits, corrections_of
from job.feedback.screen import Numbers, bias_sentences, data_sentences, group_table
from job.pages.charts import Group, Histograms, Table, histograms
from job.pages.conversations import Badge, Gallery, Order, ShownConversation, ShownSummary, fit
from job.pages.render import render
from job.printable import number_of
from job.storage.atomic import write_file

TEMPLATE = "feedback_report.html"
MAX_SHOWN = 40  # judged summaries: conflicts, then the largest corrections
CONFLICT, EDITED, DOWN = "conflict", "edited", "down"
TAGS = {CONFLICT: "Agents disagree", EDITED: "Edited", DOWN: "Thumb down"}
ORDERS = (
    Order("most words changed", "distance", is_descending=True),
    Order("longest summary", "characters", is_descending=True),
)


def write_page(path: Path, numbers: Numbers, joined: Joined, edits: Edits) -> None:
    """Write the page to `path`."""
    corrections = list(edits.values())
    text = render(
        "job.feedback",
        TEMPLATE,
        title=f"Feedback {numbers['run']}",
        version=numbers["version"],
        tiles=_tiles(numbers),
        unmatched=_unmatched(numbers),
        examples=[
            (each["reason"], example)
            for each in numbers["unmatched"]
            for example in each["examples"]
        ],
        tables=[
            ("By adapter", _table("adapter", numbers["adapters"])),
            ("By night", _table("night", numbers["nights"])),
            ("By week", _table("week", numbers["weeks"])),
            ("By agent", _table("agent", numbers["agents"])),
        ],
        conflicts=numbers["conflicts"],
        kinds=_kinds(numbers),
        distances=_distances(corrections),
        usual=_usual(numbers),
        bias=bias_sentences(numbers),
        by_length=_by_length(numbers),
        data=_data(numbers),
        data_sentences=data_sentences(numbers),
        gallery=_gallery(joined.judged, edits),
    )
    write_file(path, text.encode())


def _tiles(numbers: Numbers) -> list[tuple[str, str, str]]:
    everything = numbers["all"]
    return [
        (f"{numbers['rows']:,}", "rows of verdicts", f"{numbers['joined_rows']:,} joined"),
        (f"{numbers['judged']:,}", "summaries judged", ""),
        (f"{everything['up']:,}", "thumbs up", ""),
        (f"{everything['down']:,}", "thumbs down", ""),
        (f"{everything['edited']:,}", "edits", f"{numbers['unchanged_edits']:,} saved unchanged"),
        (f"{numbers['conflicts']['conflicts']:,}", "conflicts", "agents disagree"),
    ]


def _unmatched(numbers: Numbers) -> Table | None:
    found = numbers["unmatched"]
    if not found:
        return None
    rows = [
        (each["reason"], f"{each['rows']:,}", f"{each['rows'] / numbers['rows']:.1%}")
        for each in found
    ]
    return Table(("reason", "rows", "of all rows"), rows)


def _table(title: str, groups: Sequence[Numbers]) -> Table:
    head, *rows = group_table(title, groups)
    return Table(head, rows)


def _kinds(numbers: Numbers) -> Table | None:
    found = numbers["corrections"]
    if not found["count"]:
        return None
    rows = []
    for each in found["kinds"]:
        kind = each["kind"]
        share = f"{each['count'] / found['count']:.0%}"
        rows.append((kind.replace("_", " "), f"{each['count']:,}", share, MEANING[kind]))
    return Table(("kind", "corrections", "of all", "means that"), rows)


def _distances(corrections: Sequence[Correction]) -> Histograms | None:
    words = [Group("corrections", [each.distance for each in corrections], "judged")]
    return histograms("distances", "Words that a correction changed", words, "words")


def _usual(numbers: Numbers) -> list[tuple[str, str]]:
    pairs = []
    for name in ("added", "removed"):
        usual = ", ".join(f"{word} ({count})" for word, count in numbers["corrections"][name])
        if usual:
            pairs.append((f"Words most often {name}", usual))
    return pairs


def _by_length(numbers: Numbers) -> Table | None:
    found = numbers["bias"]["by_length"]
    if not found:
        return None
    rows = []
    for each in found:
        share = "–" if each["share"] is None else f"{each['share']:.0%}"
        rows.append((f"{each['from']:,} to {each['to']:,}", f"{each['judged']:,}", share))
    return Table(("tokens of the prompt", "judged", "of all in this quarter"), rows)


def _data(numbers: Numbers) -> Table:
    sides = ("train", "validation", "test")
    rows = [
        (kind, *(f"{counts[side]:,}" for side in sides)) for kind, counts in numbers["data"].items()
    ]
    return Table(("", *sides), rows)


def _gallery(judged: Sequence[Judged], edits: Edits) -> Gallery:
    shown = [
        _shown(each, edits) for each in judged if each.edits or each.is_conflict or _is_down(each)
    ]
    ordered = sorted(shown, key=lambda one: (CONFLICT not in one.tags, -one.numbers["distance"]))
    return Gallery(fit(ordered[:MAX_SHOWN]), TAGS, ORDERS, len(shown))


def _is_down(each: Judged) -> bool:
    return any(opinion.verdict == "down" for opinion in each.opinions)


def _shown(each: Judged, edits: Edits) -> ShownConversation:
    line = each.line
    summaries = [ShownSummary("Shown", line.summary, "judged")]
    distances = [0]
    for opinion in each.opinions:
        name = f"Agent {opinion.by}" if opinion.by else "An agent"
        badges: list[Badge] = []
        if opinion.verdict is not None:
            badges.append(Badge(opinion.verdict, "good" if opinion.verdict == "up" else "bad"))
        for found in corrections_of(each, opinion, edits):
            distances.append(found.distance)
            badges.append(Badge(f"{number_of(found.distance, 'word', 'words')} changed"))
            badges += [Badge(kind.replace("_", " ")) for kind in found.kinds]
        text = opinion.edited if opinion.edited is not None else (opinion.reason or "no edit")
        summaries.append(ShownSummary(name, text, "other", badges))
    tags = [tag for tag, is_so in _tags(each) if is_so]
    numbers: dict[str, Any] = {"distance": max(distances), "characters": len(line.summary)}
    return ShownConversation(line.id, each.shown.turns, (), summaries, tags, numbers=numbers)


def _tags(each: Judged) -> list[tuple[str, bool]]:
    return [(CONFLICT, each.is_conflict), (EDITED, bool(each.edits)), (DOWN, _is_down(each))]
