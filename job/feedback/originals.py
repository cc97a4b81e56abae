"""The conversations behind summaries, found by the digest of their content.

Files are read as the night read them. What a digest does not confirm is not used: a conversation
that went on, or a line of another file, has another digest.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from job.config.sections import StorageSection, to_plain
from job.conversations.read import read_conversations
from job.conversations.record import Conversation
from job.errors import MissingError, naming_key
from job.feedback.nights import Line, Night
from job.identity import json_digest
from job.storage.open import InputFile, list_inputs
from job.storage.selection import Selection
from job.summarization.identity import conversation_digest
from job.telemetry import warn

MAX_NAMED = 3


@dataclass
class _Wanted:
    """The lines whose conversations may be in the same files: nights that read alike."""

    night: Night
    ids: set[str] = field(default_factory=set)
    uris: set[str] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    settings: dict[str, blake2b] = field(default_factory=dict)  # of different nights


def find_originals(
    lines: Iterable[Line], nights: Sequence[Night], at: Sequence[str], storage: StorageSection
) -> dict[str, Conversation]:
    """Return the conversations of `lines` by the line's digest, as they were before cleaning.

    They are read from the files that the nights name, or from `at`. A file that is gone is logged.
    """
    found: dict[str, Conversation] = {}
    for wanted in _by_reading(lines, nights):
        files = _files(wanted, at, storage)
        for conversation in _conversations(files, wanted):
            for settings in wanted.settings.values():
                digest = conversation_digest(conversation, settings)
                if digest in wanted.digests:
                    found.setdefault(digest, conversation)
    return found


def _by_reading(lines: Iterable[Line], nights: Sequence[Night]) -> list[_Wanted]:
    groups: dict[str, _Wanted] = {}
    for line in lines:
        night = nights[line.night]
        key = json_digest(to_plain(night.reading))
        wanted = groups.setdefault(key, _Wanted(night))
        wanted.settings |= {settings.hexdigest(): settings for settings in night.settings}
        wanted.digests.add(line.digest)
        wanted.uris.add(line.source.uri)
        wanted.ids.add(line.id)
        # Ids made from the content are numbered after the digest is computed.
        wanted.ids.add(line.id.rpartition("-")[0])
    return list(groups.values())


def _files(wanted: _Wanted, at: Sequence[str], storage: StorageSection) -> list[InputFile]:
    if at:
        with naming_key("conversations_at"):
            return list_inputs(at, storage, Selection.of(wanted.night.reading))
    files = []
    gone = []
    for uri in sorted(wanted.uris):
        try:
            files += list_inputs([uri], storage)
        except MissingError:
            gone.append(uri)
    if gone:
        warn(
            "files of conversations are gone: their verdicts join nothing (conversations_at names "
            "another location)",
            count=len(gone),
            first=gone[:MAX_NAMED],
        )
    return files


def _conversations(files: Iterable[InputFile], wanted: _Wanted) -> Iterator[Conversation]:
    for file in files:
        # File by file: over several nights, ids may repeat.
        for outcome in read_conversations([file], wanted.night.reading, shows_text=False):
            if isinstance(outcome, Conversation) and outcome.id in wanted.ids:
                yield outcome
