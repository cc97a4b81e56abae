"""Numbers that prove themselves: cards and bank accounts by a checksum, US SSNs by their shape.

Every search is linear in the text: a number is at most 34 characters in groups, and is looked for
at the borders of words or groups only.
"""

import re
from collections.abc import Iterator

from job.conversations.finders.found import Found, ascii_digits
from job.conversations.finders.leads import GOODS_LEAD, is_code, lead_of

# Between groups: spaces, line breaks, dots, dashes and slashes, or one comma or underscore.
SEPARATOR = r"(?:[\s./\u2010-\u2015\u2212-]{1,3}+|[,_])"
DIGITS = re.compile(rf"\d++(?:{SEPARATOR}\d++)*+")
GROUP = re.compile(r"\d++")
CARD_DIGITS = range(13, 20)
INSIDE_CODE = re.compile(r"(?:\d[.,_\u2010-\u2015-]|\+)$")

IBAN_START = re.compile(r"(?:(?<![^\W_])|(?<=iban))([A-Z]{2})[ .-]?\d{2}", re.IGNORECASE)
IBAN_SEPARATORS = " \n\t\u00a0\u202f.-/\u2010\u2011\u2013"
# Characters of an account number by country (ISO 13616 registry).
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22,
    "BI": 27, "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27,
    "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22,
    "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23,
    "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24,
    "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28,
    "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip

# Areas 000, 666 and 900 to 999 are not given out, nor groups and serials of zeros alone.
AREA, GROUP_OF_TWO, SERIAL = r"(?!000|666|9)\d{3}", r"(?!00)\d{2}", r"(?!0000)\d{4}"
DASH = r"[-\u2010-\u2015\u2212]"
SSN = re.compile(
    rf"(?<!\d)(?<!\d[-.])({AREA})(?:{DASH}({GROUP_OF_TWO}){DASH}| ({GROUP_OF_TWO}) )({SERIAL})"
    r"(?!\d)(?![-.]\d)"
)
# Bare digits are one only behind its name.
NAMED_SSN = re.compile(
    r"(?:\bssn|\bsocial security|\bss(?=#| ?n[ou]))[^\d\n]{0,24}+"
    rf"({AREA}{GROUP_OF_TWO}{SERIAL})(?!\d)",
    re.IGNORECASE,
)


def cards(text: str) -> Iterator[Found]:
    """Find 13 to 19 digits that begin with 2 to 6 and have a right checksum, grouped or not."""
    for run in DIGITS.finditer(text):
        groups: list[tuple[int, str]] = []
        for group in GROUP.finditer(text, run.start(), run.end()):
            groups.append((group.start(), ascii_digits(group[0])))
        ends: set[int] = set()
        for first, (start, _) in enumerate(groups):
            lead = lead_of(text, start)
            # No card begins inside a code, 112-1234567-1234567, but one does behind another card.
            is_inside = INSIDE_CODE.search(lead) and start - 1 not in ends
            if is_inside or is_code(lead[::-1]) or GOODS_LEAD.search(lead):
                continue
            for found in _cards_at(groups[first : first + CARD_DIGITS.stop]):
                ends.add(found.end)
                yield found


def _cards_at(groups: list[tuple[int, str]]) -> Iterator[Found]:
    """Find the cards that begin with the first group of digits."""
    begins, first_group = groups[0]
    digits = ""
    size = len(first_group)
    is_even = True
    if first_group[0] not in "23456":
        return
    for start, group in groups:
        # Cards are grouped evenly, or begin with four or six digits: 4-6-5, 6-13.
        if not is_even and size not in (4, 6):
            return
        digits += group
        is_even = len(group) == size
        if len(digits) >= CARD_DIGITS.stop:
            return
        if len(digits) in CARD_DIGITS and has_checksum(digits):
            yield Found(begins, start + len(group), "card", digits)


def ibans(text: str) -> Iterator[Found]:
    """Find account numbers of their country's length with a right checksum, grouped or not."""
    for match in IBAN_START.finditer(text):
        length = IBAN_LENGTHS.get(match[1].upper())
        if length is None:
            continue
        value, end = _letters_and_digits(text, match.start(1), length)
        is_whole = len(value) == length and not text[end : end + 1].isalnum()
        if is_whole and has_iban_checksum(value):
            yield Found(match.start(1), end, "iban", value)


def ssns(text: str) -> Iterator[Found]:
    """Find US social security numbers: in groups of 3, 2 and 4, or bare behind their name."""
    for match in SSN.finditer(text):
        value = "".join(group for group in match.groups() if group)
        yield Found(match.start(), match.end(), "ssn", ascii_digits(value))
    for match in NAMED_SSN.finditer(text):
        yield Found(match.start(1), match.end(1), "ssn", ascii_digits(match[1]))


def has_checksum(digits: str) -> bool:
    """Return True if the last digit is the check digit of the others, by Luhn (ISO/IEC 7812-1)."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + index % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def has_iban_checksum(value: str) -> bool:
    """Return True if an account number in capitals leaves 1 modulo 97 (ISO 7064)."""
    moved = value[4:] + value[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _letters_and_digits(text: str, start: int, length: int) -> tuple[str, int]:
    """Return up to `length` letters and digits from `start`, in capitals, and where they end.

    Single separators between them are passed over.
    """
    value: list[str] = []
    end = start
    for index in range(start, min(len(text), start + 2 * length)):
        character = text[index]
        if character.isascii() and character.isalnum():
            value.append(character.upper())
            end = index + 1
        elif character not in IBAN_SEPARATORS or index > end:
            break
        if len(value) == length:
            break
    return "".join(value), end
