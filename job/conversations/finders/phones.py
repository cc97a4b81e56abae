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
    HASH_LEAD,
    LEAD_CHARACTERS,
    PHONE_LEAD,
    is_code,
    lead_of,
)

LEAST_DIGITS = 7
MOST_DIGITS = 18
# After a plus this is a number, whatever is wrong with it: `+36 (0)20 123 4567`. `+1 250 000` is
# none.
SURE_LENGTHS = range(10, 17)
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


class _Candidate(NamedTuple):
    """A number, from one token to another; `value` is the same in whatever way it is written."""

    first: int
    last: int
    value: str


def phones(text: str, plain: str, region: str) -> Iterator[Found]:
    """Find numbers that are valid in their country: `region`'s, but after a plus, 00 or 011.

    After a word such as `call` or `Tel.` any seven digits and more are one. `plain` is the text
    without everyday numbers, at the same length.
    """
    for run in RUN.finditer(plain):
        tokens = _tokens(run)
        lead = lead_of(text, run.start())
        is_called = PHONE_LEAD.search(lead) is not None
        if tokens[0].digits[0] != "+" and _is_code(lead, is_called):
            tokens = tokens[1:]
            is_called = False
        index = 0
        while index < len(tokens):
            row = _candidate_at(text, tokens, index, region)
            if row is None and index == 0 and is_called:
                row = _longest_candidate(text, tokens)
            if row is None:
                index += 1
                continue
            row = _prefer_prefixed(text, tokens, row, region)
            yield _phone(text, tokens[row.first], tokens[row.last], row.value)
            index = row.last + 1


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


def _is_code(lead: str, is_called: bool) -> bool:
    """Return True for a number behind the word for a code, or that letters or a # touch."""
    if CODE_LEAD.search(lead):
        return True
    return not is_called and (is_code(lead[::-1]) or HASH_LEAD.search(lead) is not None)


def _candidate_at(text: str, tokens: list[_Token], first: int, region: str) -> _Candidate | None:
    """Return the longest valid number that begins at `first`."""
    if not tokens[first].is_loose:
        return None
    rows = _rows(text, tokens, first)
    for last, digits in rows:
        value = valid_number(digits, region)
        if value:
            return _Candidate(first, last, value)
    if tokens[first].digits[0] != "+":
        return None
    for last, digits in rows:
        if has_possible_length(digits):
            return _Candidate(first, last, digits)
    for last, digits in rows:
        if len(digits) in SURE_LENGTHS:
            return _Candidate(first, last, digits)
    return None


def _longest_candidate(text: str, tokens: list[_Token]) -> _Candidate | None:
    """Return the longest row of digits that may be a number, whatever its country."""
    rows = _rows(text, tokens, 0)
    return _Candidate(0, *rows[0]) if rows else None


def _prefer_prefixed(text: str, tokens: list[_Token], row: _Candidate, region: str) -> _Candidate:
    """Return the candidate, or a number with a prefix that begins inside it and ends beyond it.

    A candidate without a prefix then begins with a number of another sort: `24 0151 23456789`.
    """
    if tokens[row.first].digits[0] in "+0":
        return row
    for later in range(row.first + 1, row.last + 1):
        if tokens[later].digits[0] in "+0":
            other = _candidate_at(text, tokens, later, region)
            if other is not None and other.last > row.last:
                return other
    return row


def _rows(text: str, tokens: list[_Token], first: int) -> list[tuple[int, str]]:
    """Return the rows of tokens from `first` that may be a number, the longest first."""
    rows: list[tuple[int, str]] = []
    digits = ""
    start = tokens[first].start
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
            is_free = not is_code(trail) or EXTENSION.match(trail)
            if is_free and not _is_address(text[start : token.end]):
                rows.append((last, digits))
    return rows[::-1]


def _phone(text: str, first: _Token, last: _Token, value: str) -> Found:
    start = first.start
    end = last.end
    written = text[start:end]
    if text[start - 1 : start] == "(" and written.count(")") > written.count("("):
        start -= 1
    extension = EXTENSION.match(text, end)
    if extension:
        return Found(start, extension.end(), "phone", f"{value};ext={extension[1]}")
    return Found(start, end, "phone", value)


def _is_address(written: str) -> bool:
    """Return True for a machine's address: 206.223.154.1, but not 01.23.45.67 or 22.33.44.55."""
    if not ADDRESS.fullmatch(written):
        return False
    parts = written.split(".")
    is_in_pairs = all(len(part) == 2 for part in parts)
    return not is_in_pairs and parts[0][0] != "0" and all(int(part) < 256 for part in parts)


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


def has_possible_length(digits: str) -> bool:
    """Return True for digits after a plus that are as many as a number of their country has."""
    import phonenumbers

    try:
        number = phonenumbers.parse(digits)
    except phonenumbers.NumberParseException:
        return False
    reason = phonenumbers.is_possible_number_with_reason(number)
    return bool(reason == phonenumbers.ValidationResult.IS_POSSIBLE)


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
