"""The forms in which transcripts name a speaker: one line in, a `SpeakerLine` out.

Finds a stamp of time, removes markup, and splits a label from its text. Only the other lines of
the conversation show if the label is a speaker; `speakers.py` judges it.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

Form = Literal[
    "colon",  # Agent: Hello
    "tight",  # Agent:Hello
    "dash",  # Agent - Hello, also with a bar or a tab
    "brackets",  # <Agent> Hello
    "stamp",  # Agent (00:04) Hello
    "heading",  # Agent 00:04, the text below
    "alone",  # Agent, the text below
    "voice",  # a voice tag of WebVTT
    "change",  # captions: another speaker begins, without a name
    "none",
]
IsKnown = Callable[[str], bool]
MAX_NAME_CHARACTERS = 100
MAX_PHRASE_CHARACTERS = 60  # of a label that is not written like a name
MAX_CJK_NAME_CHARACTERS = 12  # a sentence without spaces would pass for a name otherwise
MAX_SMALL_WORD_CHARACTERS = 3  # of a name: de, van, of
QUOTED_CHARACTERS = 60
READ_CHARACTERS = 250  # of a line: the longest label with two stamps and markup
CACHED_LABELS = 4096

# A short plain name, a colon and a space: nearly every line of a transcript that opens a turn.
PLAIN_LABEL = r"[#\w][\w#.'()-]*(?: [\w#.'()-]+){0,2}"
PLAIN = re.compile(
    r"(?P<time>[\[(]?\d{1,2}:\d\d(?::\d\d)?[\])]?[ \t]+)?"
    rf"(?P<label>{PLAIN_LABEL})[ \t]*:(?:\s+|$)(?P<text>.*)"
)

# Written without [0-5], which holds no digits of other scripts.
SIXTIETHS = r"(?![6-9])\d\d"
# Of a clock of twelve hours, or the word for `o'clock`, as phones in many languages write them.
BEHIND_A_CLOCK = (
    r"(?:\s?(?:[AaPp]\.?\s?[Mm]\b\.?|[πμ]\.?μ\.|[صم](?!\w)|Uhr\b|น\.|ч\.|पूर्वाह्न|अपराह्न))?"
)
BEFORE_A_CLOCK = r"(?:(?:오전|오후|午前|午後|上午|下午|凌晨|中午|晚上)\s?)?"
CLOCK = rf"\d{{1,3}}[:：]{SIXTIETHS}(?:[:：]{SIXTIETHS})?(?:[.,]\d{{1,6}})?(?!\d){BEHIND_A_CLOCK}"
MONTH = r"[^\W\d_]{3,10}\.?"
DAY = (
    r"(?:\d{4}[-./]\s?\d{1,2}[-./]\s?\d{1,2}|\d{1,2}[-./]\s?\d{1,2}[-./]\s?\d{2,4}"
    rf"|\d{{1,2}}\.?\s{MONTH}\s\d{{4}}|{MONTH}\s\d{{1,2}},?\s\d{{4}}"
    r"|\d{4}[年년]\s?\d{1,2}[月월]\s?\d{1,2}[日일])"
)
# Behind a day a clock may also be `10.15` or `10 h 15`, and a word before it (klo, à, às).
DATED = (
    rf"{DAY}(?:(?:\s?\u0433)?\.?[,،]?\s{{1,3}}(?:[^\W\d_]{{1,4}}\.?\s)?|T)"
    rf"(?:{BEFORE_A_CLOCK}{CLOCK}|\d{{1,2}}(?:\.|\s?h\s?){SIXTIETHS}(?!\d))"
)
ZONE = r"(?:Z\b|[+-]\d\d:?\d\d|\s(?:UTC|GMT|[ECMP][DS]?T|CES?T|BST|[IJK]ST)\b)?"
MOMENT = rf"(?:{DATED}|{BEFORE_A_CLOCK}{CLOCK}(?:,\s{DAY})?){ZONE}"
SPAN = rf"{MOMENT}(?:\s*(?:-->|[-–—])\s*{MOMENT})?"
SECONDS = (
    r"(?:\d+\s?h\s+)?(?:\d+\s?m\s+)?\d+(?:\.\d+)?\s?s"
    r"(?:\s?(?:-->|->|[-–—])\s?\d+(?:\.\d+)?\s?s)?"
)
# Any text in brackets with a time of day ([Tue 12 March, 10:15 AM]), or seconds, as Salesforce
# writes them: ( 1m 8s ).
BRACKETED = "|".join(
    rf"{begin}[^{begin}{end}\n]{{0,30}}?(?<![\d:]){CLOCK}[^{begin}{end}\n]{{0,40}}{end}"
    rf"|{begin}\s*(?:{SECONDS}|\d{{1,2}}\s?h\s?{SIXTIETHS})\s*{end}"
    for begin, end in ((r"\[", r"\]"), (r"\(", r"\)"), ("<", ">"))
)
BRACKETED = f"(?:{BRACKETED})"
# Seconds without their unit, [12.52 - 14.1], or a time of day: in front of a speaker alone, because
# elsewhere they are a price.
DECIMALS = r"\[\s*\d+\.\d+(?:\s?(?:-->|->|[-–—:,])\s?\d+\.\d+)?\s*\]"

# Marks of direction and the like, which chat exports put before a line.
INVISIBLE = "\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
COLONS = ":：﹕∶"
DASHES = "-–—"
SPACES = r"[ \t]*"
LIST_MARK = re.compile(r"(?:>{1,3}[ \t]*|[-*•]{1,3}[ \t]+|\d{1,4}[.)][ \t]+|#{1,6}[ \t]+)")
STAMP = re.compile(
    rf"(?P<stamp>{BRACKETED}|{DECIMALS}){SPACES}(?:[{DASHES}|][ \t]+)?"
    rf"|(?P<bare>{SPAN})(?:{SPACES}[{DASHES}|,]?[ \t]+|{SPACES}$)"
)
TIME_HINT = re.compile(r"\d[:：]\d\d|\d\s?s\s*[\])>]")
STAMP_BEHIND = re.compile(
    rf"(?P<label>[^\s{COLONS}][^{COLONS}\n]{{0,99}}?){SPACES}[{DASHES},|@·•]?{SPACES}"
    rf"(?:(?P<stamp>{BRACKETED})|(?<![\w:])(?P<bare>{SPAN}))"
    rf"{SPACES}(?P<colon>[{COLONS}]?){SPACES}(?P<text>.*)"
)
BOLD = r"(?:(?P<mark>\*{1,3}|_{1,3})|<(?:b|strong)>)"
BOLD_END = r"(?:(?P=mark)|</(?:b|strong)>)"
MARKUP = re.compile(
    rf"{BOLD}(?P<inside>[^*\s][^*\n]{{0,119}}?)"
    rf"(?:{SPACES}(?P<inner>[{COLONS}]){SPACES}{BOLD_END}|{BOLD_END}{SPACES}(?P<outer>[{COLONS}]?))"
    rf"{SPACES}(?P<text>.*)"
)
LABEL = rf"(?P<label>[^{COLONS}\n]{{1,100}}?)"
# A wide colon needs no space behind it, nor does any colon before CJK.
COLON = re.compile(
    rf"{LABEL}{SPACES}"
    rf"(?:[{COLONS[1:]}]\s*|:(?:\s+|$|(?=[\u2e80-\U0003ffff])))(?P<text>.*)"
)
TIGHT = re.compile(rf"{LABEL}{SPACES}:(?P<text>[^\s:/\\].*)")
DASH = re.compile(
    rf"(?P<label>[^{COLONS}\t\n]{{1,100}}?)"
    rf"(?:[ \t]+[{DASHES}|»>][ \t]+|{SPACES}\t{SPACES}|>[ \t]+)(?P<text>\S.*)"
)
HTML_TAG = r"</?(?:a|br|div|em|font|h[1-6]|hr|i|li|ol|p|s|span|t[drh]|table|u|ul)\b"
IN_BRACKETS = re.compile(
    rf"(?!{HTML_TAG})"
    r"(?P<label>\[[^\[\]\n]{1,100}\]|<[^<>\n]{1,100}>)"
    rf"{SPACES}(?P<text>[^\s{COLONS}].*)"
)
WRAPPED = re.compile(r"""[\[<("'“«](.{1,100})[\]>)"'”»]""")
DIGITS_AROUND = re.compile(r"[^:]*\d:\d")  # a time of day, or a ratio
PATTERNS: tuple[tuple[Form, re.Pattern[str]], ...] = (
    ("colon", COLON),
    ("dash", DASH),
    ("brackets", IN_BRACKETS),
    ("tight", TIGHT),
)
NOT_IN_A_LABEL = re.compile(r"[?!;=\\{}\"“”<>\[\]，。、；！？…]|//|,$|[^\W\d_]{5,}\. |@\w+\.\w")
BADGE = re.compile(r"(?<=\w) ?\[[\w .,&/-]{1,30}\]$")  # Bob Due [EXT]
CUT_NUMBER = re.compile(r"[\d\W_]*$")
SCHEMES = frozenset(("http", "https", "ftp", "mailto", "tel", "file", "s3"))


class SpeakerLine(NamedTuple):
    """One line of a transcript in the strongest form that it has.

    `label` and `text` are what the form separates, `raw` is the unchanged line. `stamp` is a
    time before or behind the label. A line that is only a stamp has neither label nor text.
    """

    number: int
    raw: str
    form: Form = "none"
    label: str = ""
    text: str = ""
    stamp: str = ""

    @property
    def is_bracketed(self) -> bool:
        """Return True if the stamp is in brackets, as times in a sentence seldom are."""
        return self.stamp[:1] in ("[", "(", "<") and self.stamp != ""

    @property
    def is_dated(self) -> bool:
        """Return True if the stamp has a day, as each message of a chat export has."""
        return re.search(DAY, self.stamp) is not None


def read_line(number: int, raw: str, is_known: IsKnown) -> SpeakerLine:
    """Return the line in the strongest form that it has; `is_known` says which labels are roles."""
    stripped = raw.strip().lstrip(INVISIBLE).lstrip()
    # Labels and stamps are at the start, and a line may have megabytes.
    marked = _without_markup(stripped[:READ_CHARACTERS])
    tail = stripped[READ_CHARACTERS:]
    unmarked, stamp = _split_stamp(marked)
    rest = _without_markup(unmarked)
    line = SpeakerLine(number, raw, "none", "", rest, stamp)
    strongest: SpeakerLine | None = None
    for found in _forms(line) if rest else ():
        if is_known(found.label):
            strongest = found
            break
        if strongest is None and is_label(found.label):
            strongest = found
    chosen = strongest or line
    return chosen._replace(text=chosen.text + tail) if tail else chosen


@lru_cache(CACHED_LABELS)
def is_label(text: str) -> bool:
    """Return True if the text can be a speaker's label: no sentence, no address, not too long."""
    bare = BADGE.sub("", text)
    if not 0 < len(text) <= MAX_NAME_CHARACTERS or NOT_IN_A_LABEL.search(bare):
        return False
    if text.casefold() in SCHEMES:
        return False
    return len(text) <= MAX_PHRASE_CHARACTERS or is_name(text)


@lru_cache(CACHED_LABELS)
def is_name(text: str) -> bool:
    """Return True if the words are written like a name's: capitals, and small words (de, van, of).

    Letters of scripts without capitals count as capitals, emoji as letters.
    """
    words = text.split()
    main = [word for word in words if not _is_small(word)]
    if not main or _is_small(words[-1]) or not any(map(_is_letter, "".join(main))):
        return False
    return all(_begins_like_a_name(word) for word in main)


def quote(line: str) -> str:
    """Return the start of a line in quotation marks: one line, at most QUOTED_CHARACTERS.

    A long line is cut before the word, number or address that goes on: a part of one is found by
    no redaction.
    """
    text = " ".join(line.split())
    if len(text) <= QUOTED_CHARACTERS:
        return f"'{text}'"
    whole = text[: QUOTED_CHARACTERS - 1].rpartition(" ")[0]
    return f"'{CUT_NUMBER.sub('', whole)}…'"


def _without_markup(text: str) -> str:
    """Return `**Agent:** text`, `**Agent**: text` and `<b>Agent:</b> text` as `Agent: text`.

    A tab replaces a missing colon.
    """
    marked = MARKUP.match(text)
    if not marked:
        return text
    inside = marked["inside"].strip()
    said = marked["text"]
    if marked["inner"] or marked["outer"]:
        return f"{inside}: {said}"
    return f"{inside} {said}".strip() if not said or STAMP.fullmatch(said) else f"{inside}\t{said}"


def _split_stamp(text: str) -> tuple[str, str]:
    """Return the text without a mark of a list and a stamp at its start, and the stamp."""
    rest = text
    found = STAMP.match(text)
    mark = None if found else LIST_MARK.match(text)  # `12. 3. 2024, 10:15` is no list
    if mark:
        rest = text[mark.end() :]
        found = STAMP.match(rest)
    if not found:
        return rest, ""
    return rest[found.end() :].lstrip(), found["stamp"] or found["bare"]


def _forms(line: SpeakerLine) -> Iterator[SpeakerLine]:
    """Yield the line in every form that fits, strongest first; labels are not checked."""
    number, raw, _, _, rest, stamp = line
    if TIME_HINT.search(rest):
        behind = STAMP_BEHIND.match(rest)
        # "See you at 10:15: bring it" names no speaker.
        is_sentence = behind and behind["text"] and _is_small(behind["label"].split()[-1])
        if behind and (behind["stamp"] or not is_sentence):
            said = behind["text"]
            time = behind["stamp"] or behind["bare"]
            form: Form = "colon" if behind["colon"] else "heading" if not said else "stamp"
            label = _unwrap(behind["label"])
            if form != "stamp" or behind["stamp"]:
                yield SpeakerLine(number, raw, form, label, said, stamp or time)
    for form, pattern in PATTERNS:
        found = pattern.match(rest)
        if found and not (form == "tight" and DIGITS_AROUND.match(rest)):
            yield SpeakerLine(number, raw, form, _unwrap(found["label"]), found["text"], stamp)
    if len(rest) <= MAX_NAME_CHARACTERS:
        yield SpeakerLine(number, raw, "alone", _unwrap(rest), "", stamp)


def _unwrap(label: str) -> str:
    """Return the label without brackets or quotation marks around it."""
    bare = label.strip(f"{INVISIBLE} \t")
    wrapped = WRAPPED.fullmatch(bare)
    return (wrapped[1] if wrapped else bare).strip()


def _is_small(word: str) -> bool:
    return word.islower() and word.isalpha() and len(word) <= MAX_SMALL_WORD_CHARACTERS


def _begins_like_a_name(word: str) -> bool:
    """Return True for a capital, a letter without cases, a sign, or a nickname (john_doe, ben7).

    A long run of CJK is a sentence.
    """
    if len(word) > MAX_CJK_NAME_CHARACTERS and any(character >= "\u2e80" for character in word):
        return False
    if not word.islower():
        letter = next((character for character in word if character.isalpha()), "")
        return not letter.islower() or any(character.isupper() for character in word)
    return "_" in word or any(character.isdigit() for character in word)


def _is_letter(character: str) -> bool:
    return character.isalpha() or unicodedata.category(character) == "So"
