"""`recap feedback`: join agents' verdicts with the summaries that they read, report, write data.

Writes the folders sft, pairs and thumbs, feedback.json, report.html and unmatched.jsonl.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.config.commands import FeedbackConfig
from job.config.sections import as_list, to_plain
from job.environment import describe
from job.errors import DataError, MissingError, naming_key
from job.feedback.datasets import Datasets, Split, make_datasets, split, write_datasets, write_rows
from job.feedback.held_out import EvaluationSet, read_evaluation_sets
from job.feedback.join import Joined, join, match_lines
from job.feedback.nights import Night, Written, find_nights, read_lines
from job.feedback.numbers import Edits, correct_all, numbers_of, numbers_of_data
from job.feedback.originals import find_originals
from job.feedback.output import (
    NUMBERS,
    REPORT,
    UNMATCHED,
    find_finished,
    identity_of,
    publish,
    version_of,
)
from job.feedback.page import write_page
from job.feedback.screen import missing_data
from job.feedback.verdicts import NO_MISTAKE, Unmatched, Verdict, read_verdicts
from job.printable import number_of
from job.storage.open import InputFile, list_inputs, open_store
from job.storage.scratch import work_folder
from job.telemetry import event, heartbeat, warn

MAX_ROWS_OF_UNKNOWN_VERDICT = 2  # a value that more rows have is no typing error
MAX_UNKNOWN_VERDICTS = 8  # in an error


@dataclass(frozen=True)
class Sources:
    """The files of verdicts and the nights, before anything of them is read whole."""

    files: list[InputFile]
    nights: list[Night]


@dataclass(frozen=True)
class Feedback:
    """All verdicts, joined; what the edits changed; the data; and the numbers of all that."""

    joined: Joined
    edits: Edits
    split: Split
    datasets: Datasets
    numbers: dict[str, Any]


def run_feedback(config: FeedbackConfig) -> dict[str, Any]:
    """Join, report and write the data, and return the numbers of the report.

    Does nothing if the output of this identity is there. Raise DataError, and write nothing, if
    more rows are unmatched than the limit allows.
    """
    sources = find_sources(config)
    identity = identity_of(config, sources.files, sources.nights)
    store = open_store(config.output, config.storage)
    done = find_finished(store, identity)
    if done is not None:
        event("already done", output=store.uri, version=done["version"])
        return done

    with heartbeat("joining"):
        sets = read_evaluation_sets(config)
        feedback = make_feedback(config, sources, sets)
    check_limits(config, feedback.joined)
    with work_folder(config.run) as work:
        folder = work / "feedback"
        _write(folder, config, feedback, version_of(identity))
        publish(folder, store, _facts(config, identity, feedback))
    event(
        "feedback",
        output=store.uri,
        version=version_of(identity),
        joined=feedback.joined.joined_rows,
        unmatched=len(feedback.joined.unmatched),
    )
    for sentence in missing_data(feedback.numbers):
        warn(sentence)
    return feedback.numbers


def find_sources(config: FeedbackConfig) -> Sources:
    """Return the files of verdicts and the nights. Raise MissingError for what is not there."""
    with naming_key("verdicts"):
        files = list_inputs(as_list(config.verdicts), config.storage)
    anchors = as_list(config.anchors or [])
    with naming_key("nights"):
        nights = find_nights(as_list(config.nights), config.storage, anchors)
    return Sources(files, nights)


def make_feedback(config: FeedbackConfig, sources: Sources, sets: list[EvaluationSet]) -> Feedback:
    """Read everything, join it, and make the data and the numbers. Writes nothing."""
    rows = read_rows(config, sources)
    written = read_lines(sources.nights, {row.id for row in rows if isinstance(row, Verdict)})
    joined = _join(config, sources, rows, written)
    edits = correct_all(joined.judged)
    sides = split(joined.judged, config.split, sets)
    datasets = make_datasets(joined.judged, sides)
    numbers = numbers_of(joined, sources.nights, written, edits)
    of_data = numbers_of_data(datasets, sides, sets)
    return Feedback(joined, edits, sides, datasets, numbers | of_data)


def read_rows(config: FeedbackConfig, sources: Sources) -> list[Verdict | Unmatched]:
    """Read the files of verdicts.

    Raise MissingError for fewer rows than the limit, and DataError for a value of the verdict that
    several rows have and nobody explained.
    """
    rows = list(read_verdicts(sources.files, config.fields))
    _check_verdicts_are_known(rows)
    skipped = [row for row in rows if isinstance(row, Unmatched) and row.reason == "not_judged"]
    count = len(rows) - len(skipped)
    if count < config.limits.min_verdicts:
        what = number_of(count, "row", "rows")
        if skipped:
            what += f" with a verdict or an edit, and {len(skipped)} without"
            what += f", such as {skipped[0].source}: {skipped[0].detail}"
        raise MissingError(
            f"{', '.join(as_list(config.verdicts))}: {what}; wanted at least "
            f"{config.limits.min_verdicts} (limits.min_verdicts)"
        )
    return rows


def _check_verdicts_are_known(rows: Sequence[Verdict | Unmatched]) -> None:
    """Raise DataError for values that would be lost as a class, such as all thumbs down."""
    unknown: dict[str, list[Unmatched]] = defaultdict(list)
    for row in rows:
        if isinstance(row, Unmatched) and row.unknown_verdict is not None:
            unknown[row.unknown_verdict].append(row)
    groups = [same for same in unknown.values() if len(same) > MAX_ROWS_OF_UNKNOWN_VERDICT]
    if not groups:
        return
    groups.sort(key=len, reverse=True)
    count = number_of(sum(len(same) for same in groups), "row has", "rows have")
    lines = [
        f"{count} a verdict that means neither up nor down, and without these rows the rest would "
        "be biased:"
    ]
    for same in groups[:MAX_UNKNOWN_VERDICTS]:
        rows_of_value = number_of(len(same), "row", "rows")
        lines.append(f"  {rows_of_value}, such as {same[0].source}: {same[0].detail}")
    if len(groups) > MAX_UNKNOWN_VERDICTS:
        lines.append(f"  and {len(groups) - MAX_UNKNOWN_VERDICTS:,} more values")
    lines.append("a value with the meaning none leaves its rows out of all counts")
    raise DataError("\n".join(lines))


def check_limits(config: FeedbackConfig, joined: Joined) -> None:
    """Raise DataError, with examples, if more rows join nothing than the limit allows.

    Rows that a later one replaced are no mistake. Rows of what nobody judged are no verdicts.
    """
    lost = [row for row in joined.unmatched if row.reason not in NO_MISTAKE]
    skipped = sum(row.reason == "not_judged" for row in joined.unmatched)
    rows = joined.rows - skipped
    limit = config.limits.max_unmatched_fraction
    if len(lost) <= limit * rows:
        return
    lines = [
        f"{len(lost)} of {rows} rows of verdicts join no summary, and "
        f"limits.max_unmatched_fraction allows {limit:.0%}:"
    ]
    for reason in dict.fromkeys(row.reason for row in lost):
        same = [row for row in lost if row.reason == reason]
        lines.append(f"  {reason}: {len(same)}, such as {same[0].source}: {same[0].detail}")
    lines.append("name the fields as the file has them (fields.names), and the nights as shown")
    raise DataError("\n".join(lines))


def _join(
    config: FeedbackConfig,
    sources: Sources,
    rows: list[Verdict | Unmatched],
    written: Written,
) -> Joined:
    groups, unmatched = match_lines(rows, written)
    lines = [group.line for group in groups]
    at = as_list(config.conversations_at or [])
    originals = find_originals(lines, sources.nights, at, config.storage)
    return join(groups, unmatched, sources.nights, originals)


def _write(folder: Path, config: FeedbackConfig, feedback: Feedback, version: str) -> None:
    """Write all that feedback leaves, but its manifest, and create the folder."""
    folder.mkdir()
    write_datasets(folder, feedback.datasets)
    write_rows(folder / UNMATCHED, [row.to_json() for row in feedback.joined.unmatched])
    feedback.numbers.update(run=config.run, version=version)
    numbers = json.dumps(feedback.numbers, indent=2, ensure_ascii=False) + "\n"
    (folder / NUMBERS).write_text(numbers, encoding="utf-8")
    write_page(folder / REPORT, feedback.numbers, feedback.joined, feedback.edits)


def _facts(config: FeedbackConfig, identity: dict[str, Any], feedback: Feedback) -> dict[str, Any]:
    """Return what the manifest has beside its files."""
    return {
        "identity": identity,
        "run": config.run,
        "version": version_of(identity),
        "counts": {
            "rows": feedback.joined.rows,
            "joined": feedback.joined.joined_rows,
            "unmatched": len(feedback.joined.unmatched),
            "data": feedback.datasets.counts(),
        },
        "adapters": sorted({each.line.adapter or "" for each in feedback.joined.judged}),
        "config": to_plain(config),
        "environment": describe(),
    }
