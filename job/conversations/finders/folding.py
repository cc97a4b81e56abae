"""A text without Unicode's disguises: full-width letters as plain ones, invisible characters gone.

What is found in the folded text is mapped back to the text as written.
"""

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

# All of category Cf and what else Unicode calls ignorable by default: zero-width spaces and
# joiners, soft hyphens, marks of direction, selectors of variants, fillers, tags.
INVISIBLE = (
    "\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
HIDDEN = re.compile(f"[{INVISIBLE}]")
NOT_ASCII = re.compile(r"[^\x00-\x7f]")
IDEOGRAPHIC_STOP = "\u3002"  # browsers and mail programs take it for the dot of a domain


@dataclass(frozen=True)
class Folded:
    """A folded text as stretches, with the offsets of each in the text and in the original.

    `starts` and `origins` have these offsets, `sizes` the number of characters of the original that
    each stretch stands for.
    """

    text: str
    starts: list[int]
    origins: list[int]
    sizes: list[int]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Return where the stretch from `start` to `end` of the folded text is in the original."""
        first = bisect_right(self.starts, start) - 1
        last = bisect_right(self.starts, end - 1) - 1
        # A character that became several is found whole, wherever in it the stretch begins or ends.
        begins = self.origins[first] + min(start - self.starts[first], self.sizes[first] - 1)
        ends = self.origins[last] + min(end - self.starts[last], self.sizes[last])
        return begins, ends


def fold(text: str) -> Folded | None:
    """Return the text in plain characters, or None if it is so already, as nearly all text is."""
    if _is_plain(text):
        return None
    pieces: list[tuple[str, int, int]] = []  # a text, its offset in the original, and size there
    end = 0
    for match in NOT_ASCII.finditer(text):
        offset = match.start()
        plain = _plain_stop(text, offset) if match[0] == IDEOGRAPHIC_STOP else _plain(match[0])
        if plain != match[0]:
            pieces += [(text[end:offset], end, offset - end), (plain, offset, 1)]
            end = offset + 1
    pieces.append((text[end:], end, len(text) - end))

    texts: list[str] = []
    starts: list[int] = []
    origins: list[int] = []
    sizes: list[int] = []
    length = 0
    for piece, origin, size in pieces:
        if piece:
            texts.append(piece)
            starts.append(length)
            origins.append(origin)
            sizes.append(size)
            length += len(piece)
    return Folded("".join(texts), starts, origins, sizes)


def _is_plain(text: str) -> bool:
    if text.isascii():
        return True
    has_disguise = IDEOGRAPHIC_STOP in text or HIDDEN.search(text)
    return not has_disguise and unicodedata.is_normalized("NFKC", text)


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    return HIDDEN.sub("", unicodedata.normalize("NFKC", character))


def _plain_stop(text: str, offset: int) -> str:
    """Return a dot between letters of a domain; at the end of a sentence the stop stays."""
    around = _plain(text[offset - 1 : offset]) + "." + _plain(text[offset + 1 : offset + 2])
    is_domain = len(around) == 3 and around.isascii() and (around[0] + around[2]).isalnum()
    return "." if is_domain else IDEOGRAPHIC_STOP
