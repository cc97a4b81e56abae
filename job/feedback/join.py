"""Join verdicts with the lines that they are about, and with the conversations behind these.

Every row of the input ends in exactly one way: it is part of an opinion, or unmatched for a reason.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from job.conversations.cleaning import clean, resolve_steps
from job.conversations.record import Conversation, Source
from job.conversations.redaction import redact
from job.feedback.nights import Line, Night, Written, week_of
from job.feedback.verdicts import Thumb, Unmatched, Verdict

BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
Key = tuple[str, str]  # the id and the digest of a line


@dataclass(frozen=True)
class Opinion:
    """One agent's opinion on one summary: the last thumb and the last edit of all their rows.

    Rows that name no agent are one opinion: nobody knows whether several agents disagree in them.
    `edited` is None without an edit, and `is_unchanged` is True if an edit changed nothing but
    space.
    """

    by: str
    verdict: Thumb | None
    edited: str | None
    is_unchanged: bool
    reason: str

    @property
    def is_good(self) -> bool | None:
        """True if the agent would keep the summary, False if not, None if that is not known."""
        if self.edited is not None:
            return False
        return None if self.verdict is None else self.verdict == "up"


@dataclass(frozen=True)
class Judged:
    """A summary with all opinions on it, and its conversation.

    `original` is the conversation as the night read it from its file, and `shown` as the model
    reads it: the same, or cleaned and with placeholders if the night redacted.
    """

    line: Line
    night: Night
    week: str | None
    original: Conversation
    shown: Conversation
    opinions: tuple[Opinion, ...]

    @property
    def is_conflict(self) -> bool:
        """True if one agent would keep the summary, and another would not."""
        return {True, False} <= {opinion.is_good for opinion in self.opinions}

    @property
    def edits(self) -> list[str]:
        """The different texts that agents made of the summary, in order."""
        edits = [each.edited for each in self.opinions if each.edited is not None]
        return list(dict.fromkeys(edits))

    @property
    def thumb(self) -> Thumb | None:
        """The verdict on the text as it was shown; None if nobody gave one, or they differ."""
        thumbs = {each.verdict for each in self.opinions if each.verdict is not None}
        if len(thumbs) != 1:
            return None
        (thumb,) = thumbs
        # "Up", and yet changed: it says nothing clear of the text as it was.
        return None if thumb == "up" and self.edits else thumb


@dataclass(frozen=True)
class Joined:
    """All rows of the verdicts, joined or not."""

    judged: list[Judged]
    unmatched: list[Unmatched]
    rows: int
    joined_rows: int
    unknown_times: tuple[Source, ...]  # joined rows whose time cannot be read


class _Group(NamedTuple):
    """The verdicts on one line, in the order of their rows."""

    line: Line
    verdicts: list[Verdict]


def match_lines(
    rows: Iterable[Verdict | Unmatched], written: Written
) -> tuple[list[_Group], list[Unmatched]]:
    """Return the verdicts by the line that they are about, and those that are about none."""
    groups: dict[Key, _Group] = {}
    unmatched: list[Unmatched] = []
    for row in rows:
        if isinstance(row, Unmatched):
            unmatched.append(row)
            continue
        found = written.lines.get((row.id, row.digest), [])
        if len(found) == 1:
            groups.setdefault((row.id, row.digest), _Group(found[0], [])).verdicts.append(row)
        else:
            unmatched.append(_without_line(row, len(found), written))
    return list(groups.values()), unmatched


def _without_line(row: Verdict, found: int, written: Written) -> Unmatched:
    if found:
        detail = f"{found} nights have this line with different summaries; name one of them"
        return Unmatched(row.source, "ambiguous", detail, row.id)
    known = written.digests.get(row.id)
    if known:
        what = "summaries" if len(known) > 1 else "summary"
        detail = f"{len(known)} {what} of this id in nights, none with the digest {row.digest}"
        return Unmatched(row.source, "other_digest", detail, row.id)
    return Unmatched(row.source, "unknown_id", "no night has a summary with this id", row.id)


def join(
    groups: Iterable[_Group],
    unmatched: Sequence[Unmatched],
    nights: Sequence[Night],
    originals: dict[str, Conversation],
) -> Joined:
    """Return the judged summaries in the order of nights and files, and all rows that join none."""
    judged: list[Judged] = []
    lost = list(unmatched)
    joined_rows = 0
    unknown_times: list[Source] = []
    for group in sorted(groups, key=lambda group: (group.line.night, group.line.source)):
        original = originals.get(group.line.digest)
        if original is None:
            detail = "its conversation is in no file with the content that was summarized"
            for row in group.verdicts:
                lost.append(Unmatched(row.source, "no_conversation", detail, row.id))
            continue
        kept, superseded = _without_superseded(group.verdicts)
        lost += superseded
        joined_rows += len(kept)
        unknown_times += [row.source for row in kept if row.has_unknown_time]
        judged.append(_judged(group.line, kept, nights[group.line.night], original))
    lost.sort(key=lambda row: row.source)
    rows = joined_rows + len(lost)
    return Joined(judged, lost, rows, joined_rows, tuple(sorted(unknown_times)))


def _without_superseded(rows: Sequence[Verdict]) -> tuple[list[Verdict], list[Unmatched]]:
    """Return the rows of which something counts: of each agent the last thumb and the last edit."""
    ordered = sorted(rows, key=lambda row: row.at or BEFORE_ALL)
    last: dict[tuple[str, str], Verdict] = {}
    for row in ordered:
        if row.verdict is not None:
            last[(row.by, "verdict")] = row
        if row.edited is not None:
            last[(row.by, "edited")] = row
    counted = {row.source for row in last.values()}
    kept = [row for row in ordered if row.source in counted]
    superseded = []
    for row in ordered:
        if row.source not in counted:
            who = "of the same agent" if row.by else "that names no agent either"
            detail = f"a later verdict {who} on the same summary replaced it"
            superseded.append(Unmatched(row.source, "superseded", detail, row.id))
    return kept, superseded


def _judged(line: Line, rows: Sequence[Verdict], night: Night, original: Conversation) -> Judged:
    shown = original
    hide: Callable[[str], str] = str
    if night.redactor is not None:
        # An edit may bring back what the night has hidden.
        cleaned = clean(original, resolve_steps(night.reading, [original]))
        shown, placeholders = redact(cleaned, night.redactor)
        hide = placeholders.redact_again
    by_agent: dict[str, list[Verdict]] = {}
    for row in rows:
        by_agent.setdefault(row.by, []).append(row)
    opinions = []
    for same in by_agent.values():
        opinions.append(_opinion(same, line.summary, hide))
    times = [row.at for row in rows if row.at is not None]
    week = night.week or (week_of(min(times).date()) if times else None)
    return Judged(line, night, week, original, shown, tuple(opinions))


def _opinion(rows: Sequence[Verdict], summary: str, hide: Callable[[str], str]) -> Opinion:
    thumbs = [row.verdict for row in rows if row.verdict is not None]
    edits = [hide(row.edited) for row in rows if row.edited is not None]
    reasons = [hide(row.reason) for row in rows if row.reason]
    edited = edits[-1] if edits else None
    is_unchanged = edited is not None and edited.split() == summary.split()
    return Opinion(
        by=rows[-1].by,
        verdict=thumbs[-1] if thumbs else None,
        edited=None if is_unchanged else edited,
        is_unchanged=is_unchanged,
        reason=reasons[-1] if reasons else "",
    )
