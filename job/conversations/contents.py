"""Count what conversations contain: turns, speakers, and references that hardly teach anything.

One pass over the conversations. Memory grows by 16 bytes a reference.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from job.conversations.record import Conversation
from job.identity import blake2b_16

# Of a reference: with less, it is more often a label or a remark than a summary. Chinese and
# Japanese put no spaces between words, and say as much in a third of the characters.
MIN_WORDS = 3
MIN_CHARACTERS = 12


@dataclass
class Fault:
    """The number of references with a fault, and the origin of the first of them."""

    count: int = 0
    first: str | None = None

    def add(self, conversation: Conversation) -> None:
        """Count one more."""
        self.count += 1
        self.first = self.first or str(conversation.source)


@dataclass(frozen=True)
class Contents:
    """The counts of the conversations of one split."""

    turns: Mapping[int, int] = field(default_factory=dict)  # conversations, by number of turns
    turns_by_role: Mapping[str, int] = field(default_factory=dict)
    characters_by_role: Mapping[str, int] = field(default_factory=dict)
    references: int = 0
    empty: Fault = field(default_factory=Fault)
    short: Fault = field(default_factory=Fault)  # too short to be a summary, but not empty
    repeated: Fault = field(default_factory=Fault)  # that of an earlier conversation, too

    @property
    def poor(self) -> int:
        """The number of references with a fault. Each has one at most."""
        return self.empty.count + self.short.count + self.repeated.count

    def shares(self) -> Mapping[str, float]:
        """Return the share of the characters by role, the largest first."""
        total = sum(self.characters_by_role.values()) or 1
        by_size = sorted(self.characters_by_role.items(), key=lambda item: -item[1])
        return {role: count / total for role, count in by_size}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Contents":
        """Return the contents that `dataclasses.asdict` and JSON made of one."""
        faults = {name: Fault(**content[name]) for name in ("empty", "short", "repeated")}
        turns = {int(turns): count for turns, count in content["turns"].items()}
        return cls(**dict(content) | faults | {"turns": turns})


def contents_of(conversations: Iterable[Conversation]) -> Contents:
    """Return the counts of some conversations."""
    turns: Counter[int] = Counter()
    turns_by_role: Counter[str] = Counter()
    characters_by_role: Counter[str] = Counter()
    references = 0
    faults = Contents()
    known: set[bytes] = set()
    for conversation in conversations:
        turns[len(conversation.turns)] += 1
        references += len(conversation.references)
        for turn in conversation.turns:
            turns_by_role[turn.role] += 1
            characters_by_role[turn.role] += len(turn.text)
        known |= _add_faults(faults, conversation, known)
    return Contents(
        dict(sorted(turns.items())),
        dict(turns_by_role),
        dict(characters_by_role),
        references,
        faults.empty,
        faults.short,
        faults.repeated,
    )


def _add_faults(faults: Contents, conversation: Conversation, known: set[bytes]) -> set[bytes]:
    """Count the faults of a conversation's references, and return the digests of the others.

    `known` has those of earlier conversations.
    """
    own = set()
    for reference in conversation.references:
        words = reference.casefold().split()
        if not words:
            faults.empty.add(conversation)
        elif len(words) < MIN_WORDS and len(reference) < MIN_CHARACTERS:
            faults.short.add(conversation)
        else:
            digest = blake2b_16(" ".join(words))
            own.add(digest)
            if digest in known:
                faults.repeated.add(conversation)
    return own
