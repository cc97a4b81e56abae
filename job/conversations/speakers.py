"""Decide whether a line of a transcript opens a turn, using all lines of the conversation.

docs/formats.md ("Who said what in a transcript") has the rule for users.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal

from job.config.data_sections import ReadingSection
from job.conversations.draft import ALIASES, folded_name
from job.conversations.speaker_lines import (
    CLOCK,
    COLONS,
    DIGITS_AROUND,
    MAX_PHRASE_CHARACTERS,
    PLAIN_LABEL,
    SCHEMES,
    SPACES,
    SpeakerLine,
    is_name,
)

# "doubt" and "unsure" are counted; a doubt makes a conversation bad that has one speaker otherwise.
Verdict = Literal["speaker", "doubt", "unsure", "text"]
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
        *("account", "address", "amount", "code", "date", "delivery", "email", "error", "fax"),
        *("id", "imei", "invoice", "item", "items", "mobile", "model", "name", "no", "number"),
        *("order", "phone", "postcode", "price", "ps", "qty", "quantity", "ref", "reference"),
        *("serial", "shipping", "size", "sku", "subject", "subtotal", "tel", "telephone"),
        *("time", "total", "tracking", "url", "version", "website", "zip"),
    )
)
WORD = re.compile(r"[^\W\d_]+")
LEADING = re.compile(r"[\W\d_]*")
# A name alone on its line, or with a sign behind it that no sentence has there: Agent >> Hello.
BEHIND_A_NAME = re.compile(
    r"[^\w?!.,]*$|\s*[=;:~|<>•»→]|\s+/\s|\s*(?:-{2,}|[–—])|,\S|[)\]}]|[?!…]+\s*:"
    rf"|\s[^.?!]{{0,30}}{CLOCK}(?:\W*$|\s?:\s)"
)
MIN_LINES_OF_A_STYLE = 2
LATER_HOURS = re.compile(r"(?<![\d:])[1-9]:(?=\d\d:\d\d)")
BEFORE_A_COLON = re.compile(
    rf"{SPACES}(?P<label>[^{COLONS}\n]{{1,{MAX_PHRASE_CHARACTERS}}}?){SPACES}[{COLONS}](?!//)"
)
IN_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
MAX_WORDS_OF_A_NAME = 6
MAX_WORDS_AROUND_A_ROLE = 4  # the agent, Ms. Patel's assistant
MIN_DIGITS_OF_A_CALLER = 7


class Known:
    """The labels of roles, and those that are left out, by the config or as well-known names."""

    def __init__(self, reading: ReadingSection) -> None:
        mapped = () if reading.roles == "as_written" else reading.roles
        self.names = {*map(folded_name, (*mapped, *reading.drop_roles)), *ALIASES}

    def __call__(self, label: str) -> bool:
        """Return True if the label is a role's or is left out."""
        return label in self.names or folded_name(label) in self.names


class Speakers:
    """The lines of one conversation, each judged by the others.

    `opening` is the first line, if it names a speaker; in a chat with dates, the first after the
    app's own notices.
    """

    def __init__(self, lines: Sequence[SpeakerLine], reading: ReadingSection) -> None:
        self.lines = lines
        self._known = Known(reading)
        self._as_written = reading.roles == "as_written"
        self._counts = Counter((line.form, line.label.casefold()) for line in lines)
        self._headings = sum(line.form == "heading" for line in lines)
        self.opening = self._find_opening()

    def verdict(self, line: SpeakerLine) -> Verdict:
        """Return what the line is, of a conversation with an opening."""
        assert self.opening is not None
        if line is self.opening or line.form == "voice":
            return "speaker"
        if line.form == "change":
            return "doubt"
        verdict: Verdict
        if line.form == "none":
            verdict = "unsure" if self._is_timed(line) else "text"
        elif line.form == "colon":
            verdict = self._of_colon(line)
        elif line.form == "tight":
            verdict = self._of_tight(line)
        else:
            verdict = self._of_others(line)
        if verdict in ("text", "unsure") and self._begins_with_a_speaker(line):
            return "doubt"
        return "unsure" if verdict == "text" and resembles_a_speaker(line.raw) else verdict

    def may_open(self, line: SpeakerLine) -> bool:
        """Return True if the line may be the first of a conversation."""
        if line.form in ("none", "change"):
            return False
        if line.form == "voice" or self._known(line.label):
            return True
        named = _is_named(line.label)
        recurs = self.recurs(line)
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

    def is_sure(self, label: str) -> bool:
        """Return True for a certain speaker or a role's label."""
        return label.casefold() in self._sure_names

    def recurs(self, line: SpeakerLine) -> bool:
        """Return True if the label recurs in the same form."""
        return self._counts[line.form, line.label.casefold()] > 1

    def _find_opening(self) -> SpeakerLine | None:
        notices = 0
        for line in self.lines:
            if not line.raw.strip():
                continue
            if self.may_open(line):
                return line if not notices or line.is_dated else None
            if not line.is_dated:
                return None
            notices += 1
        return None

    def _of_colon(self, line: SpeakerLine) -> Verdict:
        """Judge `Agent: Hello`, with a time or without."""
        label = line.label
        if self._known(label) or self._opens(line):
            return "speaker"
        named = _is_named(label)
        recurs = self.recurs(line)
        timed = line.stamp != "" and self._is_timed(line)
        if self._as_written:
            return self._of_any_label(line, named, timed)
        words = {word.casefold() for word in WORD.findall(label)}
        if named and not (words & FIELD_WORDS and not timed):
            return "speaker" if timed or recurs or words & SPEAKER_WORDS else "doubt"
        return "unsure" if timed or recurs or named or _is_plain(label) else "text"

    def _of_any_label(self, line: SpeakerLine, named: bool, timed: bool) -> Verdict:
        """Judge the same where any label may be a speaker's."""
        assert self.opening is not None
        recurs = self.recurs(line)
        weak: Verdict = "unsure" if timed or _is_plain(line.label) else "text"
        if not is_name(line.label) and is_name(self.opening.label) and not (recurs and named):
            # Where names have capitals, `he said: no` is not a name.
            return "doubt" if named else weak
        if recurs or (timed and named):
            return "speaker"
        if line.stamp or self.opening.stamp:
            # Where turns have times, a line without one seldom opens a turn.
            return "doubt" if named else weak
        return "speaker" if named or _is_plain(line.label) else "text"

    def _of_tight(self, line: SpeakerLine) -> Verdict:
        """Judge `Agent:Hello`."""
        if self._is_sure(line):
            return "speaker"
        if not is_name(line.label):
            return "text"
        recurs = self.recurs(line)
        same = self._has_style(line)
        if (recurs and same) or (self._as_written and (recurs or same)):
            return "speaker"
        return "doubt" if recurs or line.text[0].isalpha() else "text"

    def _of_others(self, line: SpeakerLine) -> Verdict:
        """Judge a dash, brackets, a time behind the name, and a line that is only a name."""
        sure = self._is_sure(line)
        same = self._has_style(line)
        recurs = self.recurs(line)
        named = is_name(line.label)
        match line.form:
            case "alone":
                if (sure and line.stamp) or (same and (sure or (named and line.stamp))):
                    return "speaker"
                if named and ((recurs and line.stamp) or same):
                    return "doubt"
                return "unsure" if self._is_timed(line) else "text"
            case "dash" | "brackets":
                named = named or (line.form == "brackets" and _is_named(line.label))
                if same and (sure or recurs or (named and self._as_written)):
                    return "speaker"
                if self._known(line.label) and recurs:
                    return "speaker"
                if sure or (same and _is_named(line.label)):
                    return "doubt"
                # Twice `<LINK>` or `Well - …` may be no speaker at all.
                return "unsure" if named and recurs else "text"
        is_heading = line.form == "heading"
        may_be_nick = same and _is_named(line.label) and (line.is_bracketed or is_heading)
        if sure or (recurs and (named or (may_be_nick and line.is_bracketed))):
            return "speaker"
        if named and same and (line.is_bracketed or self._as_written):
            return "speaker"
        is_likely = line.is_bracketed or (is_heading and self._headings > 1)
        return "doubt" if may_be_nick or (named and is_likely) else "text"

    def _is_sure(self, line: SpeakerLine) -> bool:
        """Return True if the label is a speaker's by other lines, or a role's."""
        is_repeated = self._counts["colon", line.label.casefold()] > 1
        return is_repeated or self._known(line.label) or self._opens(line)

    def _is_surely_named(self, line: SpeakerLine) -> bool:
        """Return True if other lines show a speaker, also names with times that come again."""
        is_heading = line.form == "heading" and is_name(line.label) and self.recurs(line)
        return is_heading or self._is_sure(line)

    def _opens(self, line: SpeakerLine) -> bool:
        assert self.opening is not None
        return line.label.casefold() == self.opening.label.casefold()

    def _has_style(self, line: SpeakerLine) -> bool:
        """Return True if the first line, or several lines of sure speakers, are written alike."""
        return _style(line) in self._styles

    @cached_property
    def _styles(self) -> set[tuple[str, str]]:
        assert self.opening is not None
        sure = (line for line in self.lines if line.form != "none" and self._is_surely_named(line))
        counts = Counter(map(_style, sure))
        several = {style for style, count in counts.items() if count >= MIN_LINES_OF_A_STYLE}
        return several | {_style(self.opening)}

    def _is_timed(self, line: SpeakerLine) -> bool:
        """Return True if the stamp is no part of a sentence: in brackets, dated, or as at first."""
        opening = self.opening
        before = opening is not None and opening.stamp != "" and opening.form != "heading"
        return line.stamp != "" and (line.is_bracketed or line.is_dated or before)

    def _begins_with_a_speaker(self, line: SpeakerLine) -> bool:
        """Return True if a sure name begins the line before a sign that belongs to no form."""
        leading = LEADING.match(line.raw)
        start = leading.end() if leading else 0
        text = line.raw[start : start + 200]
        folded = text.casefold()
        behind = (text[len(name) :] for name in self._sure_names if folded.startswith(name))
        return any(BEHIND_A_NAME.match(rest) for rest in behind)

    @cached_property
    def _sure_names(self) -> tuple[str, ...]:
        assert self.opening is not None
        counts = self._counts.items()
        repeated = (label for (form, label), count in counts if form == "colon" and count > 1)
        return (*self._known.names, *repeated, self.opening.label.casefold())


def resembles_a_speaker(text: str) -> bool:
    """Return True for text before a colon that resembles, but is not, a label.

    An address, the number of a caller, a name with signs that no form allows, or a role's word
    among few others. Such a line is counted: it may be another speaker's.
    """
    found = BEFORE_A_COLON.match(text)
    if not found or DIGITS_AROUND.match(text) or found["label"].casefold() in SCHEMES:
        return False
    label = found["label"]
    is_address = label.find("@") > 0  # at the start it mentions somebody
    if is_address or sum(map(str.isdigit, label)) >= MIN_DIGITS_OF_A_CALLER:
        return True
    words = re.findall(r"\w+", IN_BRACKETS.sub(" ", label))  # Ana (she/her)
    if len(words) <= MAX_WORDS_AROUND_A_ROLE and {*map(str.casefold, words)} & SPEAKER_WORDS:
        return True
    bare = " ".join(words)
    return bare != label and len(words) <= MAX_WORDS_OF_A_NAME and is_name(bare)


def may_be_named(lines: Iterable[str], names: Iterable[str]) -> bool:
    """Return True if one of the lines begins with one of the names."""
    beginnings = tuple(names)
    return any(line.strip().casefold().startswith(beginnings) for line in lines)


def _style(line: SpeakerLine) -> tuple[str, str]:
    """Return form and stamp, with 0 for each number: the stamps of one program look alike.

    Behind the first hour `59:58` becomes `1:00:02`.
    """
    clock = LATER_HOURS.sub("", line.stamp)
    return line.form, re.sub(r"\d+", "0", clock)


def _is_named(label: str) -> bool:
    """Return True if a speaker's label may well look so: a name, or one word (nick)."""
    return is_name(label) or " " not in label


def _is_plain(label: str) -> bool:
    return re.fullmatch(PLAIN_LABEL, label) is not None
