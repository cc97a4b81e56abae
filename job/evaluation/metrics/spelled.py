"""Numbers that are written in words: twenty-five, two thousand five hundred, quatre-vingt-dix."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import regex

from job.evaluation.metrics.number_words import COMPOUND_SCALES, SCALES, UNITS

_TOKEN = regex.compile(r"[\p{L}\p{M}]+|[^\s\p{L}\p{M}]+")
_CONNECTORS = ("and", "-", "und", "y", "e", "et", "en")
# The others follow a number: "cent" alone is a coin.
_STARTING_WORDS = (
    "hundred thousand million dozen hundert tausend honderd duizend cento cien mille mil"
)
_STARTING_SCALES = frozenset(_STARTING_WORDS.split())
LONGEST = 60  # letters: neunhundertneunundneunzigtausendneunhundertneunundneunzig
_VIGESIMAL = ("soixante", "vingt", "vingts")  # sixty and eighty go on to 79 and 99 in French
_HAN = regex.compile(r"[〇零一二两兩三四五六七八九十百千万萬億亿]+")
_CLOCK = {
    regex.compile(r"\bhalf[ -]past\b"): (30,),
    regex.compile(r"\bquarter[ -](?:past|after)\b"): (15,),
    regex.compile(r"\bquarter[ -](?:to|of|before)\b"): (45,),
    regex.compile(r"\b(?:noon|midday)\b"): (12,),
    regex.compile(r"\bmidnight\b"): (0, 12, 24),
}
CENTURIES = (18, 19, 20)
# What a half and a quarter are: of one, of a hundred, of an hour in minutes.
_FRACTIONS = {
    regex.compile(r"\bhalf\b"): (0.5, 50),
    regex.compile(r"\bhalf (?:an )?hour\b"): (30,),
    regex.compile(r"\bquarter\b"): (0.25, 25),
    regex.compile(r"\bquarter of an hour\b"): (15,),
    regex.compile(r"\bthree[ -]quarters\b"): (0.75, 75),
    regex.compile(r"\banderthalb"): (1.5,),
}
# "two and a half", "two years and a half", "an hour and a half"
_AND_A_HALF = regex.compile(r"\b(?:(\w{1,20}) )?(\w{1,20}) and a half\b")
_GERMAN_HALF = regex.compile(r"\b(\p{L}{1,20})einhalb")
_FRACTION = regex.compile(
    r"(?:(?<![\d.,/])(\d+) ?)?(?:([¼½¾⅓⅔])|(?<![\d/])([1-9])/([2-9])(?![\d/]))"
)


class Spelled(NamedTuple):
    """A number in words, as it is written, and its value. `start` and `end` are where it stands."""

    text: str
    value: float
    start: int
    end: int


@dataclass
class _Sum:
    """A number while its words are read: what is complete, and what the next scale multiplies."""

    total: float = 0
    current: float = 0
    words: list[str] = field(default_factory=list)

    def takes(self, word: str, value: float) -> bool:
        """Return True if a word goes on with the number: twenty-five, not five six."""
        rest = self.current % 100
        if self.words[-1] in _VIGESIMAL and rest in (60, 80) and value < 20:
            return True
        if word in ("vingt", "vingts") and rest == 4:
            return True
        if not rest:
            return value < 100 if self.current else value < 1000 <= self.total
        return rest >= 20 and rest % 10 == 0 and value < 10

    def add(self, word: str, value: float) -> None:
        is_eighty = word in ("vingt", "vingts") and self.current % 100 == 4 and self.words
        self.current += 76 if is_eighty else value
        self.words.append(word)

    def multiply(self, word: str, scale: float) -> None:
        if scale < 1000:
            self.current = max(self.current, 1) * scale
        elif self.total and not self.current:
            self.total *= scale
        else:
            self.total, self.current = self.total + max(self.current, 1) * scale, 0
        self.words.append(word)


def spelled_in(text: str) -> Iterator[Spelled]:
    """Yield the numbers that are written in words, in the languages of `number_words`."""
    number, start, end, joint = _Sum(), 0, 0, ""
    for token in _TOKEN.finditer(f"{text} ."):
        word = token[0].lower()
        scale = SCALES.get(word) if len(word) > 2 else None
        value = None if scale else _value_of(word)
        if word in _CONNECTORS and number.words and not joint:
            joint = word
            continue
        goes_on = number.words and (
            joint in ("", "-") if scale else value is not None and number.takes(word, value)
        )
        if not goes_on:
            if number.words:
                yield Spelled(text[start:end], number.total + number.current, start, end)
            number, start = _Sum(), token.start()
        if scale and (goes_on or word in _STARTING_SCALES):
            number.multiply(word, scale)
        elif value is not None:
            number.add(word, value)
        end, joint = token.end(), ""


def _value_of(word: str) -> float | None:
    """Return the value of a word, which may be a compound: zweihundertfünfzig, duemila."""
    if word in UNITS:
        return UNITS[word]
    if len(word) > LONGEST:
        return None
    return _value_of_compound(word)


# The same words come again and again. They are short, so the cache is small.
@lru_cache(maxsize=1 << 14)
def _value_of_compound(word: str) -> float | None:
    for scale, factor in COMPOUND_SCALES.items():
        head, found, rest = word.partition(scale)
        if not found:
            continue
        times = _value_of(head) if head else 1
        more = _value_of(rest.removeprefix("und")) if rest else 0
        if times is not None and more is not None:
            return times * factor + more
    return None


def years_in(text: str, spelled: Sequence[Spelled]) -> Iterator[Spelled]:
    """Yield the years that are written as two numbers: nineteen ninety-nine, twenty twenty-one.

    `spelled` are the numbers of the text.
    """
    for century, year in pairwise(spelled):
        is_joined = not text[century.end : year.start].strip(" -")
        if is_joined and century.value in CENTURIES and 10 <= year.value < 100:
            value = century.value * 100 + year.value
            yield Spelled(text[century.start : year.end], value, century.start, year.end)


def values_of_fractions(text: str) -> Iterator[float]:
    """Yield what fractions in words and signs say: two and a half is 2.5, half an hour is 30."""
    folded = text.lower()
    for words, values in _FRACTIONS.items():
        if words.search(folded):
            yield from values
    for match in _AND_A_HALF.finditer(folded):
        for word in match.groups():
            whole = float(word) if word and word.isdecimal() else _value_of(word or "")
            if whole is not None or word in ("a", "an"):
                yield (whole or 1) + 0.5
    for match in _GERMAN_HALF.finditer(folded):
        whole = _value_of(match[1])
        if whole is not None:
            yield whole + 0.5
    for match in _FRACTION.finditer(folded):
        sign, over, under = match[2], match[3], match[4]
        part = unicodedata.numeric(sign) if sign else float(over) / float(under)
        yield float(match[1] or 0) + part


def values_in_signs(text: str) -> Iterator[float]:
    """Yield the numbers in Chinese and Japanese signs: 三十 is 30, 两千五百 is 2500."""
    for run in _HAN.findall(text):
        total = section = digit = 0.0
        for sign in run.translate({ord("两"): "二", ord("兩"): "二"}):
            value = unicodedata.numeric(sign)
            if value >= 1e4:
                total, section, digit = total + max(section + digit, 1) * value, 0, 0
            elif value >= 10:
                section, digit = section + max(digit, 1) * value, 0
            else:
                digit = digit * 10 + value
        yield total + section + digit


def values_of_times(text: str) -> Iterator[float]:
    """Yield what English words for times say: half past three has 30, noon is 12."""
    folded = text.lower()
    for words, values in _CLOCK.items():
        if words.search(folded):
            yield from values
