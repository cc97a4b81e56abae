"""A conversation → the same with placeholders for personal data; a summary → the same, scanned again.

The same value has the same placeholder all through a conversation, however it is written, and nowhere is it kept what
stood there. Ids and metadata stay as they are. Knows nothing of models, nor of how data is found.
"""

import re
from dataclasses import dataclass

from job.config.redaction import RedactionSection
from job.conversations.record import Conversation, Turn
from job.conversations.sensitive import Finder, find, make_finders

PLACEHOLDER = re.compile(r"\[[A-Z][A-Z0-9_]*+\]")
ROLES = ("customer", "agent", "system")  # others are labels as somebody wrote them


@dataclass(frozen=True)
class Redactor:
    """What a config wants replaced, ready to be found."""

    finders: tuple[Finder, ...]


class Placeholders:
    """The placeholders of one conversation; how many values were `replaced`, and the `characters` that are held."""

    def __init__(self, redactor: Redactor) -> None:
        self._finders = redactor.finders
        self._by_value: dict[tuple[str, str], str] = {}
        self._given: set[str] = set()
        self._last: dict[str, int] = {}
        self.replaced = self.characters = 0

    def redact(self, text: str) -> str:
        """The text with a placeholder for each value in it."""
        pieces, end = [], 0
        for found in find(text, self._finders):
            pieces += [text[end : found.start], self._placeholder(found.kind, found.value)]
            end = found.end
            self.replaced += 1
        return "".join([*pieces, text[end:]])

    def redact_again(self, text: str) -> str:
        """The same for what a model wrote that read placeholders: those stay, and a value ends where one begins."""
        pieces, end = [], 0
        for match in PLACEHOLDER.finditer(text) if self._given else ():
            if match[0] in self._given:
                pieces += [self.redact(text[end : match.start()]), match[0]]
                end = match.end()
        return "".join([*pieces, self.redact(text[end:])])

    def _placeholder(self, kind: str, value: str) -> str:
        key = (kind, value)
        if key not in self._by_value:
            self._last[kind] = self._last.get(kind, 0) + 1
            self._by_value[key] = f"[{kind.upper()}_{self._last[kind]}]"
            self._given.add(self._by_value[key])
            self.characters += len(value) + len(self._by_value[key])
        return self._by_value[key]


def make_redactor(section: RedactionSection | None) -> Redactor | None:
    """The redactor of a config; None where redaction is off."""
    return None if section is None else Redactor(make_finders(section))


def redact(conversation: Conversation, redactor: Redactor) -> tuple[Conversation, Placeholders]:
    """The conversation with placeholders in what is said and in who says it, and those placeholders."""
    placeholders = Placeholders(redactor)
    turns = []
    for turn in conversation.turns:
        role = turn.role if turn.role in ROLES else placeholders.redact(turn.role)
        turns.append(Turn(role, placeholders.redact(turn.text)))
    return conversation._replace(turns=tuple(turns)), placeholders
