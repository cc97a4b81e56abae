"""Text → where personal data stands in it, by kind: addresses and numbers that have a shape of their own.

Every search is linear in the text, also in a hostile one: repeats are possessive and begin at borders only. Knows
nothing of conversations, nor of what is done about it.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from job.config.redaction import Kind, RedactionSection

LOCAL = r"\w.!#$%&'*+/=?^`{|}~-"
EMAIL = re.compile(rf"(?<![{LOCAL}])[{LOCAL}]++@[\w-]++(?:\.[\w-]++)++")
URL = re.compile(r"(?<![a-z0-9+.-])[0-9+.-]*+((?:[a-z][a-z0-9+.-]*+://|www\.)[^\s<>\"]++)", re.IGNORECASE)
IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\d|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?:[\w.]++:)??([0-9A-Fa-f:.]{3,46}+)(?![\w:])")  # also after a label: `IP:fe80::1`
HANDLE = re.compile(r"(?<![\w@])@\w++(?:[.-]\w++)*+")
DIGITS = re.compile(r"\d++(?:[\s./\u2010-\u2015\u2212-]{1,3}+\d++)*+")
GROUP = re.compile(r"\d++")
SEVEN_DIGITS = re.compile(r"(?:\d[^\d\n]{0,4}){6}\d")  # less is no phone number; most turns have none to look at
PHONE_WINDOW, PHONE_OVERLAP = 4096, 64  # characters: phonenumbers copies what is left of a text for each number in it
CARD_DIGITS = range(13, 20)
ENDS_OF_SENTENCES = ".,;:!?)]}'\u2019\u201d"


@dataclass(frozen=True)
class Found:
    """A stretch of text; `value` is the same wherever the same thing stands, however it is written."""

    start: int
    end: int
    kind: str
    value: str


Finder = Callable[[str], Iterator[Found]]


def make_finders(section: RedactionSection) -> tuple[Finder, ...]:
    """What finds the kinds and patterns of a config."""
    known: Mapping[Kind, Finder] = {
        "email": emails, "url": urls, "ip": ips, "card": cards, "handle": handles,
        "phone": partial(phones, region=section.phone_region),
    }  # fmt: skip
    return (*(known[kind] for kind in section.kinds), *(_own(*item) for item in section.patterns.items()))


def find(text: str, finders: tuple[Finder, ...]) -> list[Found]:
    """What stands in the text, in order; where finds overlap, all that they cover is one, named by the longest."""
    found = sorted((item for finder in finders for item in finder(text)), key=lambda item: item.start)
    merged: list[Found] = []
    for item in found:
        if not merged or item.start >= merged[-1].end:
            merged.append(item)
        elif item != merged[-1]:
            last = merged[-1]
            longest = max(last, item, key=lambda one: one.end - one.start)
            start, end = last.start, max(last.end, item.end)
            covers_all = (longest.start, longest.end) == (start, end)
            merged[-1] = Found(start, end, longest.kind, longest.value if covers_all else text[start:end])
    return merged


def emails(text: str) -> Iterator[Found]:
    """Addresses with a dot in their domain."""
    for match in EMAIL.finditer(text) if "@" in text else ():
        yield Found(match.start(), match.end(), "email", match[0].casefold())


def urls(text: str) -> Iterator[Found]:
    """What begins with a scheme and `://`, or with `www.`, up to a space; not the full stop of its sentence."""
    for match in URL.finditer(text):
        value = match[1].rstrip(ENDS_OF_SENTENCES)
        yield Found(match.start(1), match.start(1) + len(value), "url", value)


def ips(text: str) -> Iterator[Found]:
    """IPv4 and IPv6 addresses; a version of four numbers looks like one."""
    for match in IPV4.finditer(text):
        numbers = [int(number) for number in match[0].split(".")]
        if max(numbers) < 256:
            yield Found(match.start(), match.end(), "ip", ".".join(map(str, numbers)))
    for match in IPV6.finditer(text) if text.count(":") > 1 else ():
        if match[1].count(":") > 1:
            yield from _ipv6(match.start(1), match[1].rstrip("."))


def cards(text: str) -> Iterator[Found]:
    """13 to 19 digits that begin with 2 to 6 and have a right checksum, in groups or not."""
    for run in DIGITS.finditer(text):
        groups = [(found.start() + run.start(), _ascii(found[0])) for found in GROUP.finditer(run[0])]
        for first in range(len(groups)):
            digits = ""
            for start, group in groups[first : first + CARD_DIGITS.stop]:
                digits += group
                if len(digits) >= CARD_DIGITS.stop:
                    break
                if len(digits) in CARD_DIGITS and digits[0] in "23456" and has_checksum(digits):
                    yield Found(groups[first][0], start + len(group), "card", digits)


def handles(text: str) -> Iterator[Found]:
    """`@name`, where the @ does not stand inside a word."""
    for match in HANDLE.finditer(text) if "@" in text else ():
        yield Found(match.start(), match.end(), "handle", match[0].casefold())


def phones(text: str, region: str) -> Iterator[Found]:
    """Numbers of a length that is possible in their country: `region`'s, unless they begin with a plus."""
    for begins in range(0, len(text), PHONE_WINDOW - PHONE_OVERLAP):
        window = text[begins : begins + PHONE_WINDOW]
        for found in _phones(window, region) if SEVEN_DIGITS.search(window) else ():
            yield Found(begins + found.start, begins + found.end, found.kind, found.value)


def has_checksum(digits: str) -> bool:
    """Whether the last digit is the check digit of the others, by Luhn's algorithm (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def _phones(text: str, region: str) -> Iterator[Found]:
    import phonenumbers

    possible = phonenumbers.Leniency.POSSIBLE
    for match in phonenumbers.PhoneNumberMatcher(text, region, possible, max_tries=len(text)):
        value = phonenumbers.format_number(match.number, phonenumbers.PhoneNumberFormat.E164)
        yield Found(match.start, match.end, "phone", value)


def _ascii(digits: str) -> str:
    """Digits of any script as 0 to 9."""
    return digits if digits.isascii() else "".join(str(int(digit)) for digit in digits)


def _ipv6(start: int, text: str) -> Iterator[Found]:
    text = text if text.endswith("::") else text.removesuffix(":")
    try:
        value = str(ipaddress.IPv6Address(text))
    except ValueError:
        return
    yield Found(start, start + len(text), "ip", value)


def _own(name: str, pattern: str) -> Finder:
    import re2

    compiled: Any = re2.compile(pattern)

    def finder(text: str) -> Iterator[Found]:
        for match in compiled.finditer(text):
            if match.end() > match.start():
                yield Found(match.start(), match.end(), name, match[0])

    return finder
