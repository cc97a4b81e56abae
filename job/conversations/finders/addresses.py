"""Addresses: of mail, web pages, machines, and handles of people.

Every search is linear in the text: repeats are possessive and begin at borders only.
"""

import ipaddress
import re
from collections.abc import Iterator

from job.conversations.finders.found import Found

# The part of a mail address before the @. A quoted one may hold spaces and is bounded: RFC 5321
# allows 64 characters.
LOCAL = r"\w.!#$%&'*+/=?^`{|}~-"
QUOTED = r'"[^"\n]{1,64}+"'
DOMAIN = r"[\w-]++(?:\.[\w-]++)++"
# Several, as a table or a list joins them, are one find: `/` and `|` may be a part of the second.
NEXT = rf"[!#$%&'*+/=?^`{{|}}~][{LOCAL}]++@{DOMAIN}"
EMAIL = re.compile(rf"(?:(?<![{LOCAL}])[{LOCAL}]++|{QUOTED})@{DOMAIN}(?:{NEXT})*+")
SCHEME = r"[a-z][a-z0-9+.-]*+://"
URL = re.compile(
    rf"(?<![a-z0-9+.-])[0-9+.-]*+((?:{SCHEME}|www\.)[^\s<>\"]++)",
    re.IGNORECASE,
)
IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\d|\.\d)")
# Also after a label: `IP:fe80::1`.
IPV6 = re.compile(r"(?<![\w:.])(?:[\w.]++:)??([0-9A-Fa-f:.]{3,46}+)(?![\w:])")
HANDLE = re.compile(r"(?<![\w@])@\w++(?:[.-]\w++)*+")
ENDS_OF_SENTENCES = ".,;:!?)]}'\u2019\u201d"


def emails(text: str) -> Iterator[Found]:
    """Find addresses with a dot in their domain."""
    for match in EMAIL.finditer(text) if "@" in text else ():
        yield Found(match.start(), match.end(), "email", match[0].casefold())


def urls(text: str) -> Iterator[Found]:
    """Find what begins with a scheme and `://`, or with `www.`, up to a space.

    The full stop of the sentence is no part of it.
    """
    for match in URL.finditer(text):
        value = match[1].rstrip(ENDS_OF_SENTENCES)
        yield Found(match.start(1), match.start(1) + len(value), "url", value)


def ips(text: str) -> Iterator[Found]:
    """Find IPv4 and IPv6 addresses; a version of four numbers looks like one."""
    for match in IPV4.finditer(text):
        numbers = [int(number) for number in match[0].split(".")]
        if max(numbers) < 256:
            yield Found(match.start(), match.end(), "ip", ".".join(map(str, numbers)))
    for match in IPV6.finditer(text) if text.count(":") > 1 else ():
        if match[1].count(":") > 1:
            yield from _ipv6(match.start(1), match[1].rstrip("."))


def handles(text: str) -> Iterator[Found]:
    """Find `@name`, where the @ is not inside a word."""
    for match in HANDLE.finditer(text) if "@" in text else ():
        yield Found(match.start(), match.end(), "handle", match[0].casefold())


def _ipv6(start: int, text: str) -> Iterator[Found]:
    text = text if text.endswith("::") else text.removesuffix(":")
    try:
        value = str(ipaddress.IPv6Address(text))
    except ValueError:
        return
    yield Found(start, start + len(text), "ip", value)
