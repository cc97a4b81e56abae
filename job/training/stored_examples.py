"""Conversations that a machine reads once: for a plan and its training, and for all attempts.

Those to train on are not kept in memory: they are only needed to encode rows, and for the floors of
the scores.
"""

import os
import pickle
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from job.config.commands import TrainConfig
from job.config.sections import to_plain
from job.conversations.record import Conversation
from job.environment import versions
from job.storage.atomic import reading
from job.storage.local import LocalStore
from job.storage.open import InputFile
from job.telemetry import recorded_warnings, warn
from job.training.examples import Examples, list_files, read_examples
from job.training.prepared import prepared_data

TRAIN = "train.pickle"
OTHERS = "others.pickle"
CONVERSATIONS_AT_ONCE = 1000  # in one pickle
LENGTH_BYTES = 8  # before each pickle: its length

Warnings = list[tuple[str, dict[str, Any]]]


def read_examples_once(config: TrainConfig) -> Examples:
    """Return what `read_examples` returns, from the cache if this machine has read it before.

    Logs the same warnings each time. Raise what `read_examples` raises.
    """
    identity = _identity(config)
    with prepared_data() as prepared:
        found = prepared.find("data", identity)
        if found is not None:
            examples, warnings = _load(found)
            for message, fields in warnings:
                warn(message, **fields)
            return examples

        with recorded_warnings() as warnings:
            examples = read_examples(config)
        if _identity(config) != identity:  # nobody knows which of the two contents was read
            return examples
        stored = prepared.store("data", identity, lambda part: _store(part, examples, warnings))
        return _load(stored)[0] if stored else examples


def _identity(config: TrainConfig) -> dict[str, Any]:
    """Return all that the conversations depend on, without reading any file."""
    files = list_files(config)
    return {
        "files": {split: [_state(file) for file in some] for split, some in files.items()},
        "data": to_plain(config)["data"],
        "seed": config.training.seed,
        "max_unreferenced_fraction": config.limits.max_unreferenced_fraction,
        "versions": versions(),
        "python": platform.python_version(),  # knows the letters of one version of Unicode
    }


def _state(file: InputFile) -> list[object]:
    """Return what changes with the content of a file, whatever a program does to hide it.

    A version has the time of the last modification, which programs can reset. The system itself
    sets that of the last change.
    """
    changed = None
    if isinstance(file.store, LocalStore):
        with reading(file.uri):
            changed = os.stat(file.uri).st_ctime_ns
    return [file.uri, file.size, file.version, changed]


class StoredConversations:
    """The conversations in a file, read a thousand at a time whenever they are iterated over.

    The file is mapped: it may be deleted meanwhile. A process that unpickles this maps it, too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self._content = mmap(file.fileno(), 0, access=ACCESS_READ)

    def __iter__(self) -> Iterator[Conversation]:
        start = 0
        while start < len(self._content):
            first = start + LENGTH_BYTES
            start = first + int.from_bytes(self._content[start:first], "big")
            yield from pickle.loads(self._content[first:start])

    def __reduce__(self) -> tuple[Callable[[Path], "StoredConversations"], tuple[Path]]:
        return (StoredConversations, (self._path,))


@dataclass(frozen=True)
class _Others:
    """All of `Examples` but the conversations to train on, and the warnings of reading them."""

    examples: Examples
    warnings: Warnings


def _store(folder: Path, examples: Examples, warnings: Warnings) -> None:
    _write_conversations(folder / TRAIN, examples.train)
    others = _Others(replace(examples, train=()), warnings)
    with (folder / OTHERS).open("wb") as file:
        pickle.dump(others, file)


def _write_conversations(path: Path, conversations: Iterable[Conversation]) -> None:
    remaining = iter(conversations)
    with path.open("wb") as file:
        while batch := list(islice(remaining, CONVERSATIONS_AT_ONCE)):
            content = pickle.dumps(batch)
            file.write(len(content).to_bytes(LENGTH_BYTES, "big"))
            file.write(content)


def _load(folder: Path) -> tuple[Examples, Warnings]:
    train = StoredConversations(folder / TRAIN)
    others: _Others = pickle.loads((folder / OTHERS).read_bytes())
    return replace(others.examples, train=train, stored_as=folder.name), others.warnings
