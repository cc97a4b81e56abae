"""Transcripts: lines that name their speakers → turns, and the lines of which it is not sure whose they are.

A line whose speaker is not recognized is never part of another's turn without a word: it makes the record a bad one, or
is listed in `doubts`. docs/formats.md ("Who said what in a transcript") has the rule.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from job.config.sections import ReadingSection
from job.conversations.captions import CUE, caption_lines, first_caption
from job.conversations.draft import ALIASES, RecordError, role_of, shown
from job.conversations.record import Turn
from job.conversations.speaker_lines import (
    CACHED_LABELS,
    PLAIN,
    PLAIN_LABEL,
    IsKnown,
    SpeakerLine,
    is_name,
    quoted,
    read_line,
)

Verdict = Literal["speaker", "doubt", "unsure", "text"]
REMEDY = "give each turn its own line of 'Speaker: text', map the name under data.roles, or set data.roles: as_written"
WANTED = "wanted lines of 'Speaker: text'"
LINE_END = re.compile(r"\r\n|\r|\n")
# A line without any of these opens no turn in any form.
MAY_OPEN_A_TURN = re.compile(r"[:：\t]|^[\W\d_]|[ \t][-–—|»>][ \t]|>[ \t]")
SPEAKER_WORDS = frozenset(
    (
        *ALIASES,
        *("speaker", "bot", "chatbot", "supervisor", "manager", "visitor", "guest", "advisor"),
        *("adviser", "participant", "host", "moderator", "interviewer", "interviewee", "rep"),
        *("employee", "consultant", "specialist", "technician", "patient", "doctor", "nurse"),
    )
)
# Words of what people list line by line: orders, addresses, error reports.
FIELD_WORDS = frozenset(
    (
        *("account", "address", "amount", "code", "date", "delivery", "email", "error", "fax", "id"),
        *("imei", "invoice", "item", "items", "mobile", "model", "name", "no", "number", "order"),
        *("phone", "postcode", "price", "ps", "qty", "quantity", "ref", "reference", "serial"),
        *("shipping", "size", "sku", "subject", "subtotal", "tel", "telephone", "time", "total"),
        *("tracking", "url", "version", "website", "zip"),
    )
)
_Spoken = tuple[str | None, list[str]]  # a role, and the lines of what it says
WORD = re.compile(r"[^\W\d_]+")


class Transcript(NamedTuple):
    """The turns of a transcript, and the lines that may be another speaker's than the turn's that they are part of."""

    turns: list[Turn]
    doubts: tuple[str, ...] = ()


def read_transcript(text: str, reading: ReadingSection, *, is_whole: bool = True) -> Transcript:
    """Read the turns of `Speaker: text` lines, of WebVTT or of SRT.

    A text that is not the whole conversation may have one speaker alone. Raises RecordError where
    the first line has no speaker, a speaker's role is unknown, or what may be another speaker's
    line would leave the whole conversation with one speaker.
    """
    lines = LINE_END.split(text)
    known = Known(reading)
    may_be_captions = "-->" in text or "WEBVTT" in lines[0]
    captions = caption_lines(lines, known) if may_be_captions else None
    if captions is not None:
        return _Lines(captions, reading, is_captions=True).transcript(is_whole)
    turns = _plain_turns(lines, reading, known)
    if turns is not None:
        return Transcript(turns)
    read = [read_line(number, line, known) for number, line in enumerate(lines, 1)]
    return _Lines(read, reading).transcript(is_whole)


def without_preface(text: str, reading: ReadingSection) -> str:
    """Return the text from its first cue of captions, or the first line that may open a turn.

    A line of nothing but an unknown label is a heading (`Transcript:`) unless the label comes
    again. Raises RecordError where no line may open a turn.
    """
    lines = LINE_END.split(text)
    captions = first_caption(lines) if "-->" in text else None
    if captions is not None:
        return "\n".join(lines[captions:])
    known = Known(reading)
    whole = _Lines([read_line(number, line, known) for number, line in enumerate(lines, 1)], reading)
    first = whole.first_turn()
    if first is not None:
        return "\n".join(lines[first.number - 1 :])
    raise RecordError(f"no line of the text names a speaker; {WANTED}")


def _plain_turns(lines: Sequence[str], reading: ReadingSection, known: IsKnown) -> list[Turn] | None:
    """The turns where each line plainly opens one or plainly not; None where that takes a closer look."""
    spoken: list[_Spoken] = []
    roles: dict[str, str | None] = {}
    as_written = reading.roles == "as_written"
    for line in lines:
        stripped = line.strip()
        match = PLAIN.match(stripped)
        if match and _is_plainly_a_speakers(match, as_written, known):
            label = match["label"]
            if label not in roles:
                roles[label] = role_of(label, reading)
            spoken.append((roles[label], [match["text"]]))
        elif match or MAY_OPEN_A_TURN.search(stripped):
            return None
        elif spoken:
            spoken[-1][1].append(line)
        elif stripped:
            return None
    if len(set(roles.values())) < 2:
        return None
    return _turns(spoken)


def _is_plainly_a_speakers(match: re.Match[str], as_written: bool, known: IsKnown) -> bool:
    label = match["label"]
    if as_written:  # what is no name, or has a time, takes a closer look
        is_bare = match["time"] is None and (label[0].isalpha() or label[0] == "#")
        return is_bare and (is_name(label) or known(label))
    return known(label)


def _turns(spoken: Sequence[_Spoken]) -> list[Turn]:
    """The turns of those speakers that `drop_roles` does not leave out."""
    return [Turn(role, "\n".join(said).strip()) for role, said in spoken if role is not None]


class Known:
    """Whether a label is a role's, by `roles` of the config or by the well-known names."""

    def __init__(self, reading: ReadingSection) -> None:
        mapped = () if reading.roles == "as_written" else reading.roles
        self._names = {name.casefold() for name in (*mapped, *reading.drop_roles)} | set(ALIASES)

    def __call__(self, label: str) -> bool:
        """Return True for a label that stands for a role, or is left out by `drop_roles`."""
        return label in self._names or " ".join(label.split()).casefold() in self._names


class _Lines:
    """The lines of one conversation, each judged by what the others are."""

    def __init__(self, lines: Sequence[SpeakerLine], reading: ReadingSection, is_captions: bool = False) -> None:
        self._reading, self._is_captions, self._known = reading, is_captions, Known(reading)
        self._as_written = reading.roles == "as_written"
        self._lines = _without_lone_stamps(lines)
        self._counts = Counter((line.form, line.label.casefold()) for line in self._lines)
        self._headings = sum(line.form == "heading" for line in self._lines)
        self._opening = self._find_opening()

    def transcript(self, is_whole: bool) -> Transcript:
        """Return the turns and doubts; raises what `read_transcript` documents."""
        spoken: list[_Spoken] = []
        by_verdict: dict[Verdict, list[SpeakerLine]] = {"doubt": [], "unsure": []}
        for line in self._lines:
            verdict = self._verdict(line)
            if verdict == "speaker":
                spoken.append((self._role(line), [line.text]))
            elif spoken:
                spoken[-1][1].append(line.raw)
            elif line.raw.strip() and self._opening is None:
                raise _no_speaker(line)
            elif line.raw.strip():
                verdict = "unsure"  # a notice of the chat before its first message
            if verdict in by_verdict:
                by_verdict[verdict].append(line)
        if is_whole:
            self._check_sides(spoken, by_verdict["doubt"])
        turns = _joined(spoken) if self._is_captions else _turns(spoken)
        doubts = sorted(by_verdict["doubt"] + by_verdict["unsure"])
        return Transcript(turns, tuple(quoted(line.raw) for line in doubts))

    def first_turn(self) -> SpeakerLine | None:
        """Return the first line that may open a turn and is no heading; None if there is none."""
        for line in self._lines:
            is_lone_label = line.form == "colon" and not line.text and not self._recurs(line)
            if self._may_open(line) and not (is_lone_label and not self._known(line.label)):
                return line
        return None

    def _find_opening(self) -> SpeakerLine | None:
        """The first line, which must name a speaker; in a chat with dates, the first after the app's own notices."""
        notices = 0
        for line in self._lines:
            if not line.raw.strip():
                continue
            if self._may_open(line):
                return line if not notices or line.is_dated else None
            if not line.is_dated:
                return None
            notices += 1
        return None

    def _may_open(self, line: SpeakerLine) -> bool:
        if line.form in ("none", "change"):
            return False
        if line.form == "voice" or self._known(line.label):
            return True
        named, recurs = _is_named(line.label), self._recurs(line)
        match line.form:
            case "colon":
                return named or recurs or line.stamp != "" or _is_plain(line.label)
            case "tight":
                return named or recurs
            case "heading":
                return named and (recurs or line.is_bracketed or self._headings > 1)
            case "alone":
                return named and recurs and line.stamp != ""
        return named and recurs

    def _verdict(self, line: SpeakerLine) -> Verdict:
        opening = self._opening
        if opening is None:
            return "text"
        if line is opening or line.form == "voice":
            return "speaker"
        if line.form == "change":
            return "doubt"
        if line.form == "none":
            return "unsure" if self._is_timed(line) else "text"
        if line.form == "colon":
            return self._verdict_of_colon(line, opening)
        if line.form == "tight":
            return self._verdict_of_tight(line, opening)
        return self._verdict_of_others(line, opening)

    def _verdict_of_colon(self, line: SpeakerLine, opening: SpeakerLine) -> Verdict:
        label = line.label
        if self._known(label) or self._is_label_of(opening, line):
            return "speaker"
        named = _is_named(label)
        timed, recurs = line.stamp != "" and self._is_timed(line), self._recurs(line)
        if self._as_written:
            return self._verdict_of_a_label(line, opening, recurs, timed)
        words = {word.casefold() for word in WORD.findall(label)}
        if named and not (words & FIELD_WORDS and not timed):
            return "speaker" if timed or recurs or words & SPEAKER_WORDS else "doubt"
        return "unsure" if timed or recurs or named or _is_plain(label) else "text"

    def _verdict_of_a_label(self, line: SpeakerLine, opening: SpeakerLine, recurs: bool, timed: bool) -> Verdict:
        """Where any label may be a speaker's."""
        named = _is_named(line.label)
        if not is_name(line.label) and is_name(opening.label) and not (recurs and named):
            # Where names are written as names, `he said: no` is none.
            return "doubt" if named else "unsure" if timed or _is_plain(line.label) else "text"
        if recurs or (timed and named):
            return "speaker"
        if line.stamp or opening.stamp:
            # Where turns have times, a line without one seldom opens a turn.
            return "doubt" if named else "unsure" if timed else "text"
        return "speaker" if named or _is_plain(line.label) else "text"

    def _verdict_of_tight(self, line: SpeakerLine, opening: SpeakerLine) -> Verdict:
        """Agent:Hello."""
        label = line.label
        if self._known(label) or self._is_label_of(opening, line) or self._counts["colon", label.casefold()] > 1:
            return "speaker"
        if not is_name(label):
            return "text"
        recurs, same = self._recurs(line), opening.form == "tight"
        if (recurs and same) or (self._as_written and (recurs or same)):
            return "speaker"
        return "doubt" if recurs or line.text[0].isalpha() else "text"

    def _verdict_of_others(self, line: SpeakerLine, opening: SpeakerLine) -> Verdict:
        """A dash, a time behind the name, or a line that is only a name."""
        same = line.form == opening.form and _shape(line.stamp) == _shape(opening.stamp)
        named, recurs = is_name(line.label), self._recurs(line)
        sure = self._is_label_of(opening, line) or self._counts["colon", line.label.casefold()] > 1
        known = self._known(line.label)
        match line.form:
            case "alone":
                if (known and (line.stamp or same)) or (line.stamp and same and named):
                    return "speaker"
                return "unsure" if self._is_timed(line) else "text"
            case "dash" | "brackets":
                named = named or (line.form == "brackets" and _is_named(line.label))
                if same and (known or sure or recurs or (named and self._as_written)):
                    return "speaker"
                if known:
                    return "speaker" if recurs else "doubt"
                return "doubt" if sure or (named and recurs) or (same and _is_named(line.label)) else "text"
        if known or sure or (named and recurs):
            return "speaker"
        if named and same and (line.is_bracketed or self._as_written):
            return "speaker"
        return "doubt" if named and (same or line.is_bracketed) and line.form == "heading" else "text"

    def _recurs(self, line: SpeakerLine) -> bool:
        return self._counts[line.form, line.label.casefold()] > 1

    def _is_label_of(self, opening: SpeakerLine, line: SpeakerLine) -> bool:
        return line.label.casefold() == opening.label.casefold()

    def _is_timed(self, line: SpeakerLine) -> bool:
        """Whether the line has a time that is none of its sentence: in brackets, with a day, or as the first line."""
        before = self._opening is not None and self._opening.stamp != "" and self._opening.form != "heading"
        return line.stamp != "" and (line.is_bracketed or line.is_dated or before)

    def _role(self, line: SpeakerLine) -> str | None:
        try:
            return role_of(line.label, self._reading)
        except RecordError as error:
            raise RecordError(f"line {line.number} of the conversation {quoted(line.raw)}: {error.detail}") from None

    def _check_sides(self, spoken: Sequence[_Spoken], doubts: Sequence[SpeakerLine]) -> None:
        """Raise RecordError if only one side speaks though it is likely that another one does."""
        sides = {role for role, said in spoken if any(line.strip() for line in said)} - {"system"}
        if len(sides) > 1 or self._opening is None:
            return
        if doubts:
            where = f"line {doubts[0].number} of the conversation {quoted(doubts[0].raw)}"
            raise RecordError(f"{where} may be another speaker's, and only one speaker is sure; {REMEDY}")
        inside = _inside(self._opening.label)
        searched = (inside.search(line) for _, said in spoken for line in said)
        found = next(filter(None, searched), None)
        if found:
            where = f"at {quoted(found[0])}, inside a line"
            raise RecordError(f"a turn of the conversation seems to begin {where}; {REMEDY}")


def _without_lone_stamps(lines: Sequence[SpeakerLine]) -> list[SpeakerLine]:
    """The lines without those that are only a time; one alone, not at the start, is what somebody says."""
    written = [line for line in lines if line.raw.strip()]
    lone = [line for line in written if line.stamp and not line.text and not line.label]
    if len(lone) == 1 and written[0] is not lone[0] and not lone[0].is_bracketed:
        return list(lines)
    numbers = {line.number for line in lone}
    return [line for line in lines if line.number not in numbers] if lone else list(lines)


def _is_named(label: str) -> bool:
    """Whether a speaker's label may well look so: a name, or one word (john_doe)."""
    return is_name(label) or " " not in label


def _shape(stamp: str) -> str:
    """The stamp with each run of digits as one: those of one program look alike."""
    return re.sub(r"\d+", "0", stamp)


def _is_plain(label: str) -> bool:
    return re.fullmatch(PLAIN_LABEL, label) is not None


@lru_cache(CACHED_LABELS)
def _inside(label: str) -> re.Pattern[str]:
    """Finds the same label again, or a role's name written like it."""
    write = str.upper if label.isupper() else str.title if label[:1].isupper() else str.lower
    names = "|".join(re.escape(name) for name in (label, *map(write, ALIASES)))
    return re.compile(rf"(?:(?<!\w)|(?<=\\[nr]))(?:{names})[ \t]*[:：][ \t]*\S.*")


def _joined(spoken: Sequence[_Spoken]) -> list[Turn]:
    """The turns of captions: cues of one speaker in a row are one, and their line breaks are layout."""
    turns: list[Turn] = []
    for role, said in spoken:
        if role is None:
            continue
        text = " ".join(line.strip() for line in said if line.strip())
        if turns and turns[-1].role == role:
            turns[-1] = Turn(role, f"{turns[-1].text} {text}".strip())
        else:
            turns.append(Turn(role, text))
    return turns


def _no_speaker(line: SpeakerLine) -> RecordError:
    where = f"line {line.number} of the conversation has no speaker: {quoted(line.raw)}"
    if line.stamp and line.stamp != CUE:
        return RecordError(f"{where}; no name and colon follow its time {shown(line.stamp)}; {WANTED}")
    return RecordError(f"{where}; {WANTED}")
