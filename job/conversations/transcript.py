"""Transcripts: lines that name their speakers → turns, and the lines whose speaker is not sure.

No line of an unknown speaker silently becomes part of another's turn: it makes the record a reject,
or is listed in `doubts`. docs/formats.md ("Who said what in a transcript") has the rule.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from job.config.data_sections import ReadingSection
from job.conversations.captions import CUE, caption_lines, first_caption
from job.conversations.draft import ALIASES, RecordError, role_of, shown
from job.conversations.record import Turn
from job.conversations.speaker_lines import (
    CACHED_LABELS,
    COLONS,
    PLAIN,
    IsKnown,
    SpeakerLine,
    is_name,
    quote,
    read_line,
)
from job.conversations.speakers import (
    FIELD_WORDS,
    WORD,
    Known,
    Speakers,
    Verdict,
    may_be_named,
)

REMEDY = (
    "write each turn as a line of 'Speaker: text', map the name under data.roles, or keep all "
    "labels (data.roles: as_written)"
)
WANTED = "wanted lines of 'Speaker: text'"
LINE_END = re.compile(r"\r\n|\r|\n")
# Without any of these, only the name of somebody who speaks in the conversation opens a turn.
MAY_OPEN_A_TURN = re.compile(r"[:：﹕∶\t]|^[\W\d_]|[ \t][-–—|»>][ \t]|>[ \t]")
NAME_INSIDE = re.compile(r"(?<=\s)(?P<label>[^\W\d_a-z][\w'-]{1,40}+): ")
MAX_WORD_CHARACTERS = 60
# A line break as programs leave it, and a label behind it.
LOST_BREAK = re.compile(
    r"(?:\\[nr]|<br ?/?>|</(?:p|div)>|&#1[03];|[\v\f\x1c-\x1e\x85\u2028\u2029])\s*"
    r"(?:<[^<>]{1,40}>)?"
    rf"(?P<turn>(?P<label>[^{COLONS}\\<>\s][^{COLONS}\\<>\n]{{0,40}}?)[ \t]*[{COLONS}][ \t]*\S)"
)
Spoken = tuple[str | None, list[str]]  # a role, and the lines of what it says


class NoSpeakerError(RecordError):
    """Raised if the first line names no speaker: the text may be no transcript."""


class Transcript(NamedTuple):
    """The turns of a transcript.

    `doubts` quotes each line that may be another speaker's than the turn's that it is part of.
    """

    turns: list[Turn]
    doubts: tuple[str, ...] = ()


def read_transcript(text: str, reading: ReadingSection, *, is_whole: bool = True) -> Transcript:
    """Read the turns of `Speaker: text` lines, of WebVTT or of SRT.

    A text that is not the whole conversation may have one speaker alone. Raise RecordError where
    the first line has no speaker, a speaker's role is unknown, or what may be another speaker's
    line would leave the whole conversation with one speaker.
    """
    lines = LINE_END.split(text)
    known = Known(reading)
    may_be_captions = "-->" in text or "WEBVTT" in lines[0]
    captions = caption_lines(lines, known) if may_be_captions else None
    if captions is not None:
        return _judge(captions, reading, is_whole, is_captions=True)
    turns = _plain_turns(lines, reading, known)
    if turns is not None:
        return Transcript(turns)
    read = [read_line(number, line, known) for number, line in enumerate(lines, 1)]
    return _judge(_without_lone_stamps(read), reading, is_whole)


def without_preface(text: str, reading: ReadingSection) -> str:
    """Return the text from its first cue of captions, or the first line that may open a turn.

    A line of nothing but an unknown label is a heading (`Transcript:`) unless the label recurs.
    Raise RecordError where no line may open a turn.
    """
    lines = LINE_END.split(text)
    captions = first_caption(lines) if "-->" in text else None
    if captions is not None:
        return "\n".join(lines[captions:])
    known = Known(reading)
    read = [read_line(number, line, known) for number, line in enumerate(lines, 1)]
    speakers = Speakers(_without_lone_stamps(read), reading)
    for line in speakers.lines:
        is_lone_label = line.form == "colon" and not line.text and not speakers.recurs(line)
        if speakers.may_open(line) and not (is_lone_label and not known(line.label)):
            return "\n".join(lines[line.number - 1 :])
    raise RecordError(f"no line of the text names a speaker; {WANTED}")


def _plain_turns(
    lines: Sequence[str],
    reading: ReadingSection,
    known: IsKnown,
) -> list[Turn] | None:
    """Return the turns if each line plainly opens one or plainly does not; else None."""
    spoken: list[Spoken] = []
    roles: dict[str, str | None] = {}
    others: list[str] = []
    inside: list[str] = []
    as_written = reading.roles == "as_written"
    for line in lines:
        stripped = line.strip()
        match = PLAIN.match(stripped)
        if match and _is_plainly_a_speakers(match, as_written, known):
            label = match["label"]
            if label not in roles:
                roles[label] = role_of(label, reading)
            spoken.append((roles[label], [match["text"]]))
            inside += _names_inside(match["text"])
        elif match or MAY_OPEN_A_TURN.search(stripped):
            return None
        elif spoken:
            spoken[-1][1].append(line)
            others.append(stripped)
        elif stripped:
            return None
    if len(set(roles.values())) < 2 or any(known(one) or one in roles for one in inside):
        return None
    names = (*ALIASES, *map(str.casefold, roles))
    return None if others and may_be_named(others, names) else _turns(spoken)


def _is_plainly_a_speakers(match: re.Match[str], as_written: bool, known: IsKnown) -> bool:
    label = match["label"]
    if as_written:  # what is no name, or has a time, takes a closer look
        is_bare = match["time"] is None and (label[0].isalpha() or label[0] == "#")
        return is_bare and (is_name(label) or known(label))
    return known(label)


def _judge(
    lines: Sequence[SpeakerLine],
    reading: ReadingSection,
    is_whole: bool,
    is_captions: bool = False,
) -> Transcript:
    """Return turns and doubts. Raise the errors that `read_transcript` names."""
    speakers = Speakers(lines, reading)
    spoken: list[Spoken] = []
    by_verdict: dict[Verdict, list[SpeakerLine]] = {"doubt": [], "unsure": []}
    for line in lines:
        if speakers.opening is None:
            if line.raw.strip():
                raise _no_speaker(line)
            continue
        verdict = speakers.verdict(line)
        if verdict == "speaker":
            spoken.append((_role(line, reading), [line.text]))
        elif spoken:
            spoken[-1][1].append(line.raw)
        elif line.raw.strip():
            verdict = "unsure"  # a notice of the chat before its first message
        if verdict in ("speaker", "text") and any(map(speakers.is_sure, _names_inside(line.text))):
            verdict = "unsure"  # a turn of another that lost its line break
        if verdict in by_verdict:
            by_verdict[verdict].append(line)
    if is_whole and speakers.opening is not None:
        _check_sides(spoken, by_verdict["doubt"], speakers.opening.label)
    doubts = sorted(by_verdict["doubt"] + by_verdict["unsure"])
    turns = _join_cues(spoken) if is_captions else _turns(spoken)
    return Transcript(turns, tuple(quote(line.raw) for line in doubts))


def _turns(spoken: Sequence[Spoken]) -> list[Turn]:
    """Return the turns of those speakers that `drop_roles` does not leave out."""
    return [Turn(role, "\n".join(said).strip()) for role, said in spoken if role is not None]


def _join_cues(spoken: Sequence[Spoken]) -> list[Turn]:
    """Return the turns of captions: one for all cues of a speaker in a row, on one line."""
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


def _role(line: SpeakerLine, reading: ReadingSection) -> str | None:
    try:
        return role_of(line.label, reading)
    except RecordError as error:
        where = f"line {line.number} of the conversation {quote(line.raw)}"
        raise RecordError(f"{where}: {error.detail}") from None


def _check_sides(spoken: Sequence[Spoken], doubts: Sequence[SpeakerLine], label: str) -> None:
    """Raise RecordError if only one side speaks though it is likely that another one does.

    `label` is the first speaker's.
    """
    sides = {role for role, said in spoken if any(line.strip() for line in said)} - {"system"}
    if len(sides) > 1:
        return
    if doubts:
        where = f"line {doubts[0].number} of the conversation {quote(doubts[0].raw)}"
        raise RecordError(f"{where} may be another speaker's, and only one is sure; {REMEDY}")
    searched = (_turn_inside(line, label) for _, said in spoken for line in said)
    found = next(filter(None, searched), None)
    if found:
        where = f"at {quote(found)}, inside a line"
        raise RecordError(f"a turn of the conversation seems to begin {where}; {REMEDY}")


def _turn_inside(line: str, label: str) -> str | None:
    """Return the end of a line from where another turn begins in it; None if none does."""
    found = _inside(label).search(line)
    if found:
        return found[0]
    for lost in LOST_BREAK.finditer(line):
        words = {word.casefold() for word in WORD.findall(lost["label"])}
        if is_name(lost["label"]) and not words & FIELD_WORDS:
            return line[lost.start("turn") :]
    return None


def _names_inside(text: str) -> list[str]:
    """Return the names before a colon inside a line's text: `Agent` of `Hi. Agent: Hello`.

    A word behind one with a capital is no name: `Operating System: Linux`.
    """
    if ": " not in text:
        return []
    found = []
    for match in NAME_INSIDE.finditer(text):
        before = text[max(0, match.start() - MAX_WORD_CHARACTERS) : match.start()].split()
        if before and not (before[-1][0].isupper() and before[-1].isalpha()):
            found.append(match["label"])
    return found


@lru_cache(CACHED_LABELS)
def _inside(label: str) -> re.Pattern[str]:
    """Return a pattern of the same label, or a role's name written like it, inside a line."""
    write = str.upper if label.isupper() else str.title if label[:1].isupper() else str.lower
    names = "|".join(re.escape(name) for name in (label, *map(write, ALIASES)))
    return re.compile(rf"(?:(?<!\w)|(?<=\\[nr]))(?:{names})[ \t]*[{COLONS}][ \t]*\S.*")


def _without_lone_stamps(lines: Sequence[SpeakerLine]) -> list[SpeakerLine]:
    """Return the lines but those that are only a time.

    A single one is part of somebody's text, unless it is the first line or in brackets.
    """
    written = [line for line in lines if line.raw.strip()]
    lone = [line for line in written if line.stamp and not line.text and not line.label]
    if len(lone) == 1 and written[0] is not lone[0] and not lone[0].is_bracketed:
        return list(lines)
    numbers = {line.number for line in lone}
    return [line for line in lines if line.number not in numbers] if lone else list(lines)


def _no_speaker(line: SpeakerLine) -> NoSpeakerError:
    where = f"line {line.number} of the conversation has no speaker: {quote(line.raw)}"
    if line.stamp and line.stamp != CUE:
        time = shown(line.stamp)
        return NoSpeakerError(f"{where}; no name and colon follow its time {time}; {WANTED}")
    return NoSpeakerError(f"{where}; {WANTED}")
