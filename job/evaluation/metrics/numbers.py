"""Numbers of a text by their values, across notations: 1,000 is 1.000 is 1000, 3 pm is 15:00.

`numbers_in` is for a summary: each number with the values that it may have. `Evidence` is for a
conversation: every value that a careful reader could take from it. Both are generous, so that a
number that is reported as invented is one.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import regex

from job.evaluation.metrics.number_words import MONTHS, SCALES
from job.evaluation.metrics.spelled import (
    LONGEST,
    spelled_in,
    values_in_signs,
    values_of_fractions,
    values_of_times,
    years_in,
)

# Seven digits or more with spaces or signs between them, as in a phone number; or digits with
# single separators, of which a space separates thousands only.
_RUN = regex.compile(
    r"\p{Nd}(?:[ \-()./]{0,2}\p{Nd}){6,}+(?![.,:]\p{Nd})"
    r"|\p{Nd}+(?:[.,'’:/\-]\p{Nd}+|[ \u00a0\u202f]\p{Nd}{3}(?!\p{Nd}))*"
)
_DIGITS = regex.compile(r"\d+")
_TIME = regex.compile(r"(\d{1,2})[:.h]00")
_GROUPED = regex.compile(r"\d{1,3}(?:([.,'’ \u00a0\u202f])\d{3})(?:\1\d{3})*(?:[.,]\d{1,2})?")
_INDIAN = regex.compile(r"\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d{1,2})?")
_DECIMAL = regex.compile(r"\d+[.,]\d+")
_WORD = regex.compile(r"[\p{L}\p{M}]+")
_AFTER = regex.compile(r"[ \u00a0\u202f\-]?([\p{L}]+)")
_AFTERNOON = regex.compile(r"\s?(?::\d\d)?\s?p\.?\s?m\b", regex.IGNORECASE)
UNCLEAR_SCALES = ("m", "cent", "mil", "mille")  # 10 metres, 50 cents of a dollar
MIN_DIGITS_WITH_A_COUNTRY = 11  # +1 (555) 123-4567 is 555-123-4567
MIN_SPELLED = 10  # smaller numbers in words count things that the summary sees: "two problems"


class Number(NamedTuple):
    """A number as it is written, and what it may mean: any of these sets of values, all of one."""

    text: str
    readings: tuple[frozenset[float], ...]


class Evidence(NamedTuple):
    """The values of all numbers of a conversation."""

    values: frozenset[float]

    def has(self, number: Number) -> bool:
        """Return True if one reading of the number has no value that the conversation lacks."""
        return any(reading <= self.values for reading in number.readings)


def evidence_of(text: str) -> Evidence:
    """Return the values that the text supports."""
    values = {1.0}  # "an hour" is 1 hour
    for match in _RUN.finditer(text):
        run = _ascii(match[0])
        for reading in _readings(run):
            values |= reading
        values |= _other_hours(run, text[match.end() :])
        values |= _years(run)
        scale = _scale_after(text, match.end())
        if scale:
            values |= {value for reading in scale.readings(_readings(run)) for value in reading}
    rest = _without_scaled(text)
    in_words = list(spelled_in(rest))
    values |= {spelled.value for spelled in (*in_words, *years_in(rest, in_words))}
    values |= {*values_in_signs(text), *values_of_times(text), *values_of_fractions(text)}
    for word in _WORD.findall(text.lower()):
        if word in MONTHS:
            values.add(MONTHS[word])
    return Evidence(frozenset(values))


def numbers_in(text: str) -> list[Number]:
    """Return the numbers of the text: those in digits, and those from ten in words."""
    found = []
    for match in _RUN.finditer(text):
        readings = _readings(_ascii(match[0]))
        scale = _scale_after(text, match.end())
        if scale:
            scaled = scale.readings(readings)
            readings = scaled if scale.is_clear else [*scaled, *readings]
        end = scale.end if scale else match.end()
        found.append(Number(text[match.start() : end], tuple(readings)))
    rest = _without_scaled(text)
    in_words = list(spelled_in(rest))
    years = list(years_in(rest, in_words))
    for year in reversed(years):
        century, of_century = divmod(year.value, 100)
        readings = [frozenset((year.value,)), frozenset((century, of_century))]
        found.append(Number(year.text, tuple(readings)))
        rest = f"{rest[: year.start]}.{rest[year.end :]}"
    for spelled in spelled_in(rest) if years else in_words:
        if spelled.value >= MIN_SPELLED:
            found.append(Number(spelled.text, (frozenset((spelled.value,)),)))
    return found


def _ascii(run: str) -> str:
    """Return the run with the digits 0-9, whatever script it is in."""
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in run)


def _readings(run: str) -> list[frozenset[float]]:
    """Return what a run of digits may mean: one value, or the values of its parts."""
    parts = [float(part) for part in _DIGITS.findall(run)]
    readings = [frozenset(parts)]
    joined = "".join(_DIGITS.findall(run))
    if len(joined) >= MIN_DIGITS_WITH_A_COUNTRY:
        readings += [frozenset((float(joined[country:]),)) for country in (1, 2, 3)]
    if len(parts) > 1:
        readings.append(frozenset((float(joined),)))  # a phone number, a time such as 08:15
    if _GROUPED.fullmatch(run) or _INDIAN.fullmatch(run):
        # The last separator, if it is another one, is the decimal point.
        whole, cents = regex.fullmatch(r"(.*?\d{3})(?:[.,](\d{1,2}))?", run).groups()
        digits = "".join(regex.findall(r"\d+", whole))
        readings.append(frozenset((float(f"{digits}.{cents or 0}"),)))
    if _DECIMAL.fullmatch(run):
        readings.append(frozenset((float(run.replace(",", ".")),)))
    hour = _TIME.fullmatch(run)
    if hour:
        readings.append(frozenset((float(hour[1]),)))
    if joined.startswith("0") and len(joined) == 4:
        readings.append(frozenset((float(joined[:2]), float(joined[2:]))))
    return readings


def _other_hours(run: str, rest: str) -> set[float]:
    """Return the same hour on the other clock."""
    hour = regex.match(r"\d+", run)
    assert hour, run
    value = float(hour[0])
    if 13 <= value <= 24:
        return {value - 12}
    if value <= 12 and _AFTERNOON.match(rest):
        return {value + 12}
    return set()


def _years(run: str) -> set[float]:
    """Return the year of a date in two and in four digits."""
    years = set()
    for part in _DIGITS.findall(run):
        if len(part) == 4 and part[:2] in ("19", "20"):
            years.add(float(part[2:]))
    if regex.fullmatch(r"\d{1,2}[./\-]\d{1,2}[./\-]\d{2}", run):
        years.add(2000 + float(run[-2:]))
    return years


def _without_scaled(text: str) -> str:
    """Return the text without the words that multiply digits: thousand, in 20 thousand."""
    for match in reversed(list(_RUN.finditer(text))):
        scale = _scale_after(text, match.end())
        if scale:
            text = f"{text[: match.end()]} {text[scale.end :]}"
    return text


class _Scale(NamedTuple):
    """Words that multiply the number before them, or may do so.

    `more` is what they may add: in 2 thousand five hundred, but not in 2 million five years ago.
    """

    factor: float
    more: float
    end: int
    is_clear: bool

    def readings(self, before: Sequence[frozenset[float]]) -> list[frozenset[float]]:
        """Return what the number may mean, of what the digits before the words may mean."""
        products = [frozenset(value * self.factor for value in reading) for reading in before]
        if not self.more:
            return products
        sums = [frozenset(value + self.more for value in reading) for reading in products]
        apart = {self.more} if self.more >= MIN_SPELLED else set()
        return [*sums, *(reading | apart for reading in products)]


def _scale_after(text: str, end: int) -> _Scale | None:
    match = _AFTER.match(text, end)
    if match is None or match[1].lower() not in SCALES:
        return None
    word = match[1].lower()
    factor, end, is_clear = SCALES[word], match.end(), word not in UNCLEAR_SCALES
    rest = text[end : end + LONGEST]
    more = next(spelled_in(rest), None) if len(word) > 2 else None
    if more and more.value < factor and rest[: more.start].strip() in ("", "and"):
        return _Scale(factor, more.value, end + more.end, is_clear)
    return _Scale(factor, 0, end, is_clear)
