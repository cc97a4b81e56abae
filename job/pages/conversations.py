"""Conversations beside their summaries, as records that `conversations.html` shows.

A gallery can be searched, filtered by tags and ordered by numbers, in the page alone.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from job.conversations.record import Turn

MAX_CHARACTERS = 20_000  # of a conversation's turns; what follows is counted
MAX_GALLERY_CHARACTERS = 2_000_000  # of all texts: a page of a few megabytes opens at once

BadgeKind = Literal["bad", "good", "plain"]


@dataclass(frozen=True)
class Badge:
    """A short remark on a summary."""

    text: str
    kind: BadgeKind = "plain"


@dataclass(frozen=True)
class ShownSummary:
    """One system's summary of a conversation.

    `marks` are parts of the text to highlight, each with the reason. `kind` is the system's:
    `judged` stands out.
    """

    name: str
    text: str
    kind: str = "other"
    badges: Sequence[Badge] = ()
    marks: Mapping[str, str] = field(default_factory=dict)

    def segments(self) -> list["Segment"]:
        """Return the text in pieces, of which those to highlight have a reason."""
        return segments(self.text, self.marks)


@dataclass(frozen=True)
class ShownConversation:
    """A conversation with everything that a reader compares.

    `tags` name the gallery's filters that show it, and `numbers` is what it can be ordered by.
    """

    id: str
    turns: Sequence[Turn]
    references: Sequence[str] = ()
    summaries: Sequence[ShownSummary] = ()
    tags: Sequence[str] = ()
    badges: Sequence[Badge] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    left_out: int = 0  # characters of turns that are not shown

    @property
    def numbers_as_json(self) -> str:
        """Return the finite numbers for the page's script."""
        finite = {name: value for name, value in self.numbers.items() if math.isfinite(value)}
        return json.dumps(finite)

    @property
    def size(self) -> int:
        """Return the number of characters of all its texts."""
        texts = [turn.text for turn in self.turns]
        texts += [*self.references, *(summary.text for summary in self.summaries)]
        return sum(map(len, texts))


@dataclass(frozen=True)
class Order:
    """A way to order conversations: by `number`, largest first if `is_descending`."""

    title: str
    number: str
    is_descending: bool = False


@dataclass(frozen=True)
class Gallery:
    """Conversations to search, with the titles of their tags in the order of the filters."""

    conversations: Sequence[ShownConversation]
    tags: Mapping[str, str]
    orders: Sequence[Order]
    of: int  # conversations that these were chosen from

    def count(self, tag: str) -> int:
        """Return how many conversations have the tag."""
        return sum(tag in conversation.tags for conversation in self.conversations)


@dataclass(frozen=True)
class Segment:
    """A piece of text; `reason` says why it is highlighted, if it is."""

    text: str
    reason: str = ""


def fit(conversations: Sequence[ShownConversation]) -> list[ShownConversation]:
    """Return the conversations that fit a page together, in order, the turns of long ones cut.

    One with summaries or references that are too long for the page hides none after it.
    """
    fitting = []
    room = MAX_GALLERY_CHARACTERS
    for conversation in map(_cut, conversations):
        if conversation.size <= room:
            room -= conversation.size
            fitting.append(conversation)
    return fitting


def segments(text: str, marks: Mapping[str, str]) -> list[Segment]:
    """Return the text in pieces: each occurrence of a mark with its reason, and the rest.

    A mark is whole words, unless it never stands so: scripts without spaces have no other words.
    """
    longest_first = sorted(filter(None, marks), key=len, reverse=True)
    if not longest_first:
        return [Segment(text)]
    pattern = "|".join(_pattern(mark, text) for mark in longest_first)
    pieces = []
    end = 0
    for found in re.finditer(pattern, text):
        if found.start() > end:
            pieces.append(Segment(text[end : found.start()]))
        pieces.append(Segment(found[0], marks[found[0]]))
        end = found.end()
    if end < len(text) or not pieces:
        pieces.append(Segment(text[end:]))
    return pieces


def _pattern(mark: str, text: str) -> str:
    anywhere = re.escape(mark)
    whole = rf"(?<!\w){anywhere}(?!\w)"
    return whole if re.search(whole, text) else anywhere


def _cut(conversation: ShownConversation) -> ShownConversation:
    """Return the conversation with at most MAX_CHARACTERS of turns."""
    kept: list[Turn] = []
    room = MAX_CHARACTERS
    for turn in conversation.turns:
        kept.append(Turn(turn.role, turn.text[:room]))
        room -= len(turn.text)
        if room < 0:
            break
    else:
        return conversation
    whole = sum(len(turn.text) for turn in conversation.turns)
    left_out = whole - sum(len(turn.text) for turn in kept)
    return replace(conversation, turns=kept, left_out=left_out)
