"""The data to train on: edits as references, pairs of edit and summary, and thumbs.

A row has the conversation itself, as the model reads it before its prompt is made. A training makes
the prompt, by the code that makes it of every conversation: no file has a prompt that a later
template or tokenizer would contradict.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from job.config.feedback_sections import FeedbackSplitSection
from job.conversations.record import Conversation
from job.conversations.splits import compare, content_digest, hold_out
from job.errors import DataError
from job.feedback.held_out import EvaluationSet, Leak, find_leaks
from job.feedback.join import Judged
from job.storage.atomic import writing

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")
KINDS = ("sft", "pairs", "thumbs")
FEWEST_TO_HOLD_OUT = 2  # different conversations

Row = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """The side of each conversation, by the digest of its content, and what is on none.

    `leaks` are those that an evaluation set has, `in_test` the number of earlier conversations that
    one of the test weeks repeats.
    """

    sides: Mapping[str, Side]
    test_weeks: Sequence[str]
    leaks: Mapping[str, Leak]
    in_test: int


@dataclass
class Datasets:
    """Rows by kind and side, and the numbers of judged summaries that gave none."""

    rows: dict[str, dict[Side, list[Row]]] = field(
        default_factory=lambda: {kind: {side: [] for side in SIDES} for kind in KINDS}
    )
    left_out: dict[str, int] = field(
        default_factory=lambda: {"conflict": 0, "in_evaluation": 0, "in_test": 0}
    )

    def test_pairs(self) -> int:
        """Return the number of different conversations in the pairs of the test."""
        return len({json.dumps(row["turns"]) for row in self.rows["pairs"]["test"]})

    def thumbs_to_train(self) -> dict[str, int]:
        """Return the numbers of thumbs up and down that a training gets."""
        labels = [row["label"] for row in self.rows["thumbs"]["train"]]
        return {"up": labels.count(True), "down": labels.count(False)}

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the numbers of rows."""
        return {
            kind: {side: len(rows) for side, rows in by_side.items()}
            for kind, by_side in self.rows.items()
        }


def split(
    judged: Sequence[Judged], section: FeedbackSplitSection, sets: Sequence[EvaluationSet]
) -> Split:
    """Return on which side each conversation is. No two sides share one, exactly or nearly."""
    originals: dict[str, Conversation] = {}
    weeks: dict[str, set[str]] = {}
    for each in judged:
        digest = content_digest(each.original)
        originals.setdefault(digest, each.original._replace(id=digest))
        weeks.setdefault(digest, set()).update([each.week] if each.week else [])

    leaks = find_leaks(list(originals.values()), sets)
    usable = {digest: one for digest, one in originals.items() if digest not in leaks}
    newest = _test_weeks(
        [each for each in judged if content_digest(each.original) in usable], section
    )
    test = [one for digest, one in usable.items() if weeks[digest] & set(newest)]
    in_test = {one.id for one in test}
    earlier = [one for digest, one in usable.items() if digest not in in_test]
    repeated = {overlap.train_id for overlap in compare(earlier, test).overlap}
    rest = [one for one in earlier if one.id not in repeated]

    sides: dict[str, Side] = {one.id: "test" for one in test}
    for one in rest:
        sides[one.id] = "train"
    if section.validation_fraction and len(rest) >= FEWEST_TO_HOLD_OUT:
        for one in _held_out(rest, section):
            sides[one.id] = "validation"
    return Split(sides, newest, leaks, len(repeated))


def _test_weeks(judged: Sequence[Judged], section: FeedbackSplitSection) -> list[str]:
    """Return the newest weeks with an edit, of which a test has pairs, or else with any verdict.

    Of too few weeks none: all of them would leave nothing to train on.
    """
    edited = {each.week for each in judged if each.week and each.edits and not each.is_conflict}
    known = {each.week for each in judged if each.week}
    for weeks in (sorted(edited), sorted(known)):
        if 0 < section.test_weeks < len(weeks):
            return weeks[-section.test_weeks :]
    return []


def _held_out(
    conversations: Sequence[Conversation], section: FeedbackSplitSection
) -> list[Conversation]:
    """Return the share for validation; nothing of conversations that all repeat each other."""
    try:
        return hold_out(conversations, section.validation_fraction, section.seed)[1]
    except DataError:
        return []


def make_datasets(judged: Iterable[Judged], split: Split) -> Datasets:
    """Return the rows of every kind and side. Conflicts give none: a person decides about them."""
    found = Datasets()
    references: dict[tuple[str, str], Row] = {}
    for each in judged:
        digest = content_digest(each.original)
        if each.is_conflict:
            found.left_out["conflict"] += 1
        elif digest in split.leaks:
            found.left_out["in_evaluation"] += 1
        elif digest not in split.sides:
            found.left_out["in_test"] += 1
        else:
            _add(each, split.sides[digest], found, references)
    for by_side in found.rows.values():
        for rows in by_side.values():
            _number_ids(rows)
    return found


def _add(each: Judged, side: Side, found: Datasets, references: dict[tuple[str, str], Row]) -> None:
    edits = each.edits
    if edits:
        # Of several summaries of one conversation, all edits are references of one row.
        key = (each.line.id, content_digest(each.original))
        if key not in references:
            references[key] = _row(each) | {"summaries": []}
            found.rows["sft"][side].append(references[key])
        known = references[key]["summaries"]
        known += [edit for edit in edits if edit not in known]
    for edit in edits:
        pair = {"chosen": edit, "rejected": each.line.summary}
        found.rows["pairs"][side].append(_row(each) | pair)
    if each.thumb is not None:
        # Not under `summary`: a training would take what an agent refused for a reference.
        thumb = {"completion": each.line.summary, "label": each.thumb == "up"}
        found.rows["thumbs"][side].append(_row(each) | thumb)


def _row(each: Judged) -> Row:
    line = each.line
    return {
        "id": line.id,
        "turns": [{"role": turn.role, "text": turn.text} for turn in each.shown.turns],
        "metadata": {
            "id": line.id,
            "digest": line.digest,
            "adapter": line.adapter,
            "night": each.night.name,
            "week": each.week,
            "agents": [opinion.by for opinion in each.opinions if opinion.by],
            "reasons": [opinion.reason for opinion in each.opinions if opinion.reason],
        },
    }


def _number_ids(rows: Sequence[Row]) -> None:
    """Number the ids that repeat earlier ones: readers of conversations refuse them otherwise."""
    taken = {row["id"] for row in rows}
    seen: set[str] = set()
    for row in rows:
        number = 2
        id = row["id"]
        while row["id"] in seen or (row["id"] != id and row["id"] in taken):
            row["id"] = f"{id}-{number}"
            number += 1
        seen.add(row["id"])


def write_datasets(folder: Path, datasets: Datasets) -> None:
    """Write `KIND/SIDE.jsonl` for every kind and side that has rows."""
    with writing(folder):
        for kind, by_side in datasets.rows.items():
            for side, rows in by_side.items():
                if rows:
                    path = folder / kind / f"{side}.jsonl"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_rows(path, rows)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a file with a JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
