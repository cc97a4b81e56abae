"""Phone numbers, by Google's rules of every country (`phonenumbers`).

Digits with the separators of phone numbers are cut into tokens where people put two numbers beside
each other: at spaces, slashes and opening brackets. The longest row of tokens that is a number is
one. A row has at most 18 digits, so the search is linear in the text.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from job.conversations.finders.found import Found, ascii_digits
from job.conversations.finders.leads import (
    CODE_LEAD,
    LEAD_CHARACTERS,
    PHONE_LEAD,
    is_code,
    lead_of,
)

LEAST_DIGITS, MOST_DIGITS = 7, 18
SPACE = r"[^\S\r\n]"
SEPARATOR = rf"(?:{SPACE}|[./()\[\]~\u2010-\u2015\u2212-])"
RUN = re.compile(rf"(?:[+\uff0b]{SPACE}?\(?)?\d++(?:{SEPARATOR}{{1,4}}+\d++)*+")
TOKEN = re.compile(r"[+\uff0b][^\d]{0,2}\d++|\d++")
LOOSE = re.compile(r"[\s/(\[]")
# Single digits, each apart from the next: one token, or every digit would begin rows of its own.
SPELLED = re.compile(r"(?<!\d)\d(?:[ .-]\d(?!\d)){5,}+")
EXTENSION = re.compile(
    rf"(?:;ext=|,?{SPACE}{{0,2}}(?:extension|extn?|ext|x|#|durchwahl|dw|poste|anexo|int)"
    rf"{SPACE}?[.:]?{SPACE}?)(\d{{1,7}})(?![\d-])",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")  # of a machine


class _Token(NamedTuple):
    """Digits that are written together; `is_loose` where a number may begin here."""

    start: int
    end: int
    digits: str
    is_loose: bool


def phones(text: str, plain: str, region: str) -> Iterator[Found]:
    """Find numbers that are valid in their country: `region`'s, but after a plus, 00 or 011.

    After a word such as `call` or `Tel.` any seven digits and more are one. `plain` is the text
    without everyday numbers, at the same length.
    """
    for run in RUN.finditer(plain):
        tokens = _tokens(run)
        if sum(len(token.digits) for token in tokens) < LEAST_DIGITS:
            continue
        first = 0
        while first < len(tokens):
            row = _row(text, tokens, first, region)
            if row is None:
                first += 1
                continue
            last, value = row
            better = _better(text, tokens, first, last, region)
            if better is not None:
                first = better
                continue
            yield _found(text, tokens[first], tokens[last], value)
            first = last + 1


def _better(text: str, tokens: list[_Token], first: int, last: int, region: str) -> int | None:
    """Return where a number with a prefix begins inside a row without one, and ends beyond it.

    Then the row began with a number of another sort: `24 0151 23456789`.
    """
    if tokens[first].digits[0] in "+0":
        return None
    for later in range(first + 1, last + 1):
        if tokens[later].digits[0] in "+0":
            row = _row(text, tokens, later, region)
            if row is not None and row[0] > last:
                return later
    return None


def _tokens(run: re.Match[str]) -> list[_Token]:
    spelled = {match.start(): match.end() for match in SPELLED.finditer(run[0])}
    tokens: list[_Token] = []
    end = 0
    for match in TOKEN.finditer(run[0]):
        start = match.start()
        if start < end:
            continue
        gap = run[0][end:start]
        end = spelled.get(start, match.end())
        written = run[0][start:end]
        digits = ascii_digits("".join(filter(str.isdecimal, written)))
        plus = "+" if written[0] in "+\uff0b" else ""
        is_loose = not tokens or LOOSE.search(gap) is not None
        tokens.append(_Token(run.start() + start, run.start() + end, plus + digits, is_loose))
    return tokens


def _row(text: str, tokens: list[_Token], first: int, region: str) -> tuple[int, str] | None:
    """Return the last token of the longest number that begins at `first`, and its value."""
    if not tokens[first].is_loose:
        return None
    start = tokens[first].start
    has_plus = is_called_phone = tokens[first].digits[0] == "+"
    if first == 0 and not has_plus:  # else digits are in front of it
        lead = lead_of(text, start)
        is_called_phone = PHONE_LEAD.search(lead) is not None
        if CODE_LEAD.search(lead) or (is_code(lead[::-1]) and not is_called_phone):
            return None
    rows = _rows(text, tokens, first)
    if rows and _is_address(text[start : tokens[rows[0][0]].end]):
        return None
    for last, digits in rows:
        value = valid_number(digits, region)
        if value:
            return last, value
    return rows[0] if rows and is_called_phone else None


def _is_address(written: str) -> bool:
    """Return True for an address of a machine: 206.223.154.1, but not 01.23.45.67 or 22.33.44.55."""
    if not ADDRESS.fullmatch(written):
        return False
    parts = written.split(".")
    is_in_pairs = all(len(part) == 2 for part in parts)
    return not is_in_pairs and parts[0][0] != "0" and all(int(part) < 256 for part in parts)


def _rows(text: str, tokens: list[_Token], first: int) -> list[tuple[int, str]]:
    """Return the rows of tokens from `first` that may be a number, the longest first."""
    rows: list[tuple[int, str]] = []
    digits = ""
    for last in range(first, len(tokens)):
        token = tokens[last]
        if last > first and token.digits[0] == "+":
            break
        digits += token.digits
        if len(digits.lstrip("+")) > MOST_DIGITS:
            break
        is_border = last + 1 == len(tokens) or tokens[last + 1].is_loose
        if is_border and len(digits.lstrip("+")) >= LEAST_DIGITS:
            trail = text[token.end : token.end + LEAD_CHARACTERS]
            if not is_code(trail) or EXTENSION.match(trail):
                rows.append((last, digits))
    return rows[::-1]


def _found(text: str, first: _Token, last: _Token, value: str) -> Found:
    start, end = first.start, last.end
    if text[start - 1 : start] == "(" and ")" in text[start : end + 1]:
        start -= 1
    extension = EXTENSION.match(text, end)
    if extension:
        return Found(start, extension.end(), "phone", f"{value};ext={extension[1]}")
    return Found(start, end, "phone", value)


@lru_cache(maxsize=8192)
def valid_number(digits: str, region: str) -> str | None:
    """Return a number as E.164 has it, or None if no country has such a number."""
    import phonenumbers

    candidates = [digits]
    if digits.startswith("00"):
        candidates.append("+" + digits[2:])
    elif digits.startswith("011"):
        candidates.append("+" + digits[3:])
    for candidate in candidates:
        try:
            number = phonenumbers.parse(candidate, region, keep_raw_input=True)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number) and not _lacks_prefix(number, candidate):
            return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
    return None


def _lacks_prefix(number: Any, digits: str) -> bool:
    """Return True for a number without the 0 that its country always writes in front of it."""
    import phonenumbers

    if number.country_code_source != phonenumbers.CountryCodeSource.FROM_DEFAULT_COUNTRY:
        return False
    national = phonenumbers.national_significant_number(number)
    if digits != national:
        return False
    country = phonenumbers.region_code_for_country_code(number.country_code)
    metadata: Any = phonenumbers.PhoneMetadata.metadata_for_region(country)
    for style in metadata.number_format if metadata else ():
        leads = style.leading_digits_pattern
        is_its_style = not leads or re.match(leads[-1], national)
        if is_its_style and re.fullmatch(style.pattern, national):
            before = (style.national_prefix_formatting_rule or "").partition("\\1")[0]
            has_prefix = any(character.isdigit() for character in before)
            return has_prefix and not style.national_prefix_optional_when_formatting
    return False
