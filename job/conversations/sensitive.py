"""Personal data in a text, by kind: addresses and numbers that have a shape.

Every search is linear in the text, also in a hostile one.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from job.config.redaction import Kind, RedactionSection
from job.conversations.finders.addresses import emails, handles, ips, urls
from job.conversations.finders.everyday import SEVEN_DIGITS, without_everyday
from job.conversations.finders.folding import Folded, fold
from job.conversations.finders.found import Finder, Found
from job.conversations.finders.numbers import cards, ibans, ssns
from job.conversations.finders.phones import phones

NUMBERS: frozenset[Kind] = frozenset({"card", "iban", "ssn", "phone"})


def make_finders(section: RedactionSection) -> tuple[Finder, ...]:
    """Return the finders of the kinds and patterns of a config."""
    addresses: Mapping[Kind, Finder] = {
        "email": emails,
        "url": urls,
        "ip": ips,
        "handle": handles,
    }
    finders = [addresses[kind] for kind in section.kinds if kind in addresses]
    if NUMBERS.intersection(section.kinds):
        # First, since of two finds of one stretch the first names it: 01.23.45.67 is a valid phone.
        finders.insert(0, _numbers(frozenset(section.kinds), section.phone_region))
    return (*finders, *(_own(*item) for item in section.patterns.items()))


def find(text: str, finders: tuple[Finder, ...]) -> list[Found]:
    """Return the personal data in the text, in order.

    Overlapping finds become one that covers all of them, of the longest one's kind. Both the text
    as written and the text without disguised characters (full-width, invisible) are searched.
    """
    folded = fold(text)
    found: list[Found] = []
    if folded is not None:
        found += [_unfold(item, folded) for one in finders for item in one(folded.text)]
    found += [item for one in finders for item in one(text)]
    return _merge(text, sorted(found, key=lambda item: item.start))


def _merge(text: str, found: list[Found]) -> list[Found]:
    merged: list[Found] = []
    for item in found:
        if not merged or item.start >= merged[-1].end:
            merged.append(item)
        elif item != merged[-1]:
            last = merged[-1]
            longest = max(last, item, key=lambda one: one.end - one.start)
            start = last.start
            end = max(last.end, item.end)
            covers_all = (longest.start, longest.end) == (start, end)
            value = longest.value if covers_all else text[start:end]
            merged[-1] = Found(start, end, longest.kind, value)
    return merged


def _unfold(found: Found, folded: Folded) -> Found:
    start, end = folded.original(found.start, found.end)
    return Found(start, end, found.kind, found.value)


def _numbers(kinds: frozenset[Kind], region: str) -> Finder:
    """Return a finder of these kinds of numbers; it skips texts with too few digits."""

    def finder(text: str) -> Iterator[Found]:
        if not SEVEN_DIGITS.search(text):
            return
        if "iban" in kinds:
            yield from ibans(text)
        if "ssn" in kinds:
            yield from ssns(text)
        plain = without_everyday(text)
        if "card" in kinds:
            yield from cards(plain)
        if "phone" in kinds:
            yield from phones(text, plain, region)

    return finder


def _own(name: str, pattern: str) -> Finder:
    import re2

    compiled: Any = re2.compile(pattern)

    def finder(text: str) -> Iterator[Found]:
        for match in compiled.finditer(text):
            if match.end() > match.start():
                yield Found(match.start(), match.end(), name, match[0])

    return finder
