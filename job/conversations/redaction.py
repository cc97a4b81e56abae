"""Redaction: placeholders for personal data in conversations, summaries and messages.

The same value has the same placeholder all through a conversation, however it is written; no file
has what it was. A summary is scanned again, and messages that quote a record are redacted too. Ids
and metadata stay as they are. `sensitive.py` finds the data.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from job.config.redaction import RedactionSection
from job.conversations.finders.found import Finder
from job.conversations.record import Conversation, Turn
from job.conversations.sensitive import find, make_finders
from job.errors import DataError

PLACEHOLDER = re.compile(r"\[[A-Z][A-Z0-9_]*+\]")
# In whatever brackets: other tools write <EMAIL_1>, and a model may take one for the other.
NUMBERED_NAME = re.compile(r"(?<!\w)[A-Za-z][A-Za-z0-9_]*+(?<=\d)(?!\w)")
# The word or group of digits at which a quotation was cut off.
CUT_OFF = re.compile(r"(?:[^\s'\"…]|(?<=[\d./-])\s(?=[\d./-])){1,40}+…")
ROLES = ("customer", "agent", "system")  # others are labels as somebody wrote them


@dataclass(frozen=True)
class Redactor:
    """The searches for all that a config wants replaced."""

    finders: tuple[Finder, ...]


class Placeholders:
    """The placeholders of one conversation.

    `replaced` counts the values that were replaced, `characters` the characters that this object
    holds. No value gets a placeholder that `reserve` has seen in a text.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._finders = redactor.finders
        self._by_value: dict[tuple[str, str], str] = {}  # (kind, value) → placeholder
        self._given: set[str] = set()
        self._reserved: set[str] = set()
        self._last: dict[str, int] = {}  # kind → number
        self.replaced = 0
        self.characters = 0

    def reserve(self, text: str) -> None:
        """Reserve the placeholders that somebody else's redaction left in a text."""
        if "_" not in text:
            return
        for match in NUMBERED_NAME.finditer(text):
            name = match[0].upper()
            if "_" in name and name not in self._reserved:
                self._reserved.add(name)
                self.characters += len(name)

    def redact(self, text: str) -> str:
        """Return the text with a placeholder for each value in it."""
        pieces = []
        end = 0
        for found in find(text, self._finders):
            pieces += [text[end : found.start], self._placeholder(found.kind, found.value)]
            end = found.end
            self.replaced += 1
        return "".join([*pieces, text[end:]])

    def redact_again(self, text: str) -> str:
        """Redact the text of a model that read placeholders.

        Those stay, and a value ends where one begins. Placeholders that the model made up are
        reserved.
        """
        self.reserve(text)
        if not self._given:
            return self.redact(text)
        pieces = []
        end = 0
        for match in PLACEHOLDER.finditer(text):
            if match[0] in self._given:
                pieces += [self.redact(text[end : match.start()]), match[0]]
                end = match.end()
        return "".join([*pieces, self.redact(text[end:])])

    def _placeholder(self, kind: str, value: str) -> str:
        key = (kind, value)
        if key not in self._by_value:
            placeholder = self._next(kind)
            self._by_value[key] = placeholder
            self._given.add(placeholder)
            self.characters += len(value) + len(placeholder)
        return self._by_value[key]

    def _next(self, kind: str) -> str:
        number = self._last.get(kind, 0) + 1
        while f"{kind.upper()}_{number}" in self._reserved:
            number += 1
        self._last[kind] = number
        return f"[{kind.upper()}_{number}]"


def make_redactor(section: RedactionSection | None) -> Redactor | None:
    """Return the redactor of a config; None if redaction is off."""
    return None if section is None else Redactor(make_finders(section))


def redact(conversation: Conversation, redactor: Redactor) -> tuple[Conversation, Placeholders]:
    """Return the conversation with placeholders in texts and roles, and the placeholders."""
    placeholders = Placeholders(redactor)
    for turn in conversation.turns:
        placeholders.reserve(turn.role)
        placeholders.reserve(turn.text)
    turns = []
    for turn in conversation.turns:
        role = turn.role if turn.role in ROLES else placeholders.redact(turn.role)
        turns.append(Turn(role, placeholders.redact(turn.text)))
    return conversation._replace(turns=tuple(turns)), placeholders


def redact_message(message: str, redactor: Redactor | None) -> str:
    """Return a message about a record without personal data in its quotations.

    The word at which a quotation is cut is left out, because no search finds half of a card number.
    """
    if redactor is None:
        return message
    return Placeholders(redactor).redact(CUT_OFF.sub("…", message))


@contextmanager
def redacted_errors(redactor: Redactor | None, uris: Sequence[str]) -> Iterator[None]:
    """Redact the message of a DataError about one of the files `uris` that the block raises.

    Such a message begins with the file's URI, which stays. Errors of other classes quote no record.
    Without a redactor, nothing changes.
    """
    try:
        yield
    except DataError as error:
        message = str(error)
        uri = max((uri for uri in uris if message.startswith(uri)), key=len, default="")
        if redactor is None or not uri:
            raise
        redacted = redact_message(message[len(uri) :], redactor)
        raise type(error)(uri + redacted) from None
