"""Count what conversations contain: turns, speakers, and references that hardly teach anything.

One pass over the conversations. Memory grows by 16 bytes a reference.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from job.conversations.record import Conversation, Source
from job.identity import blake2b_16

# Of a reference: with less, it is more often a label or a remark than a summary. Chinese and
# Japanese put no spaces between words, and say as much in a third of the characters.
MIN_WORDS = 3
MIN_CHARACTERS = 12


@dataclass
class Finding:
    """The number of references with a fault, and the origin of the first of them."""

    count: int = 0
    first: Source | None = None

    def add(self, source: Source) -> None:
        """Count one more."""
        self.count += 1
        self.first = self.first or source

    def facts(self) -> dict[str, Any]:
        """Return the finding as JSON types."""
        return {"count": self.count, "first": str(self.first) if self.first else None}


@dataclass
class Contents:
    """The counts of the conversations of one split."""

    conversations: Counter[int] = field(default_factory=Counter)  # by their number of turns
    turns: Counter[str] = field(default_factory=Counter)  # by role
    characters: Counter[str] = field(default_factory=Counter)  # by role
    references: int = 0
    empty: Finding = field(default_factory=Finding)
    short: Finding = field(default_factory=Finding)  # too short to be a summary, but not empty
    repeated: Finding = field(default_factory=Finding)  # that of an earlier conversation, too

    @property
    def poor(self) -> int:
        """The number of references with a fault. Each has one at most."""
        return self.empty.count + self.short.count + self.repeated.count

    def shares(self) -> Mapping[str, float]:
        """Return the share of the characters by role, the largest first."""
        total = sum(self.characters.values()) or 1
        return {role: count / total for role, count in self.characters.most_common()}

    def facts(self) -> dict[str, Any]:
        """Return the counts as JSON types."""
        return {
            "conversations_by_turns": dict(sorted(self.conversations.items())),
            "turns_by_role": dict(self.turns.most_common()),
            "characters_by_role": dict(self.characters.most_common()),
            "references": self.references,
            "empty_references": self.empty.facts(),
            "short_references": self.short.facts(),
            "repeated_references": self.repeated.facts(),
        }


def contents_of(conversations: Iterable[Conversation]) -> Contents:
    """Return the counts of some conversations."""
    contents = Contents()
    known: set[bytes] = set()
    for conversation in conversations:
        contents.conversations[len(conversation.turns)] += 1
        for turn in conversation.turns:
            contents.turns[turn.role] += 1
            contents.characters[turn.role] += len(turn.text)
        _add_references(contents, conversation, known)
    return contents


def _add_references(contents: Contents, conversation: Conversation, known: set[bytes]) -> None:
    """Count the references of a conversation, and add their digests to those that are known."""
    own = set()
    for reference in conversation.references:
        contents.references += 1
        words = reference.casefold().split()
        if not words:
            contents.empty.add(conversation.source)
        elif len(words) < MIN_WORDS and len(reference) < MIN_CHARACTERS:
            contents.short.add(conversation.source)
        else:
            digest = blake2b_16(" ".join(words))
            own.add(digest)
            if digest in known:
                contents.repeated.add(conversation.source)
    known |= own
