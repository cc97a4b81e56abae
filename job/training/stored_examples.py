"""Conversations that a machine reads once: for a plan and its training, and for all attempts.

Those to train on are not kept in memory: they are only needed to encode rows, and for the floors of
the scores.
"""

import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, is_dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from job.config.commands import TrainConfig
from job.config.sections import to_plain
from job.conversations.contents import Contents
from job.conversations.record import Answer, Conversation, Source, Turn
from job.conversations.splits import Overlap, Repeats
from job.environment import versions
from job.storage.atomic import reading
from job.storage.local import LocalStore
from job.storage.open import InputFile
from job.telemetry import recorded_warnings, warn
from job.training.answer_facts import AnswerFacts
from job.training.examples import Examples, SplitFacts, list_files, read_examples
from job.training.prepared import prepared_data
from job.training.replay import Replay

TRAIN = "train.jsonl"
OTHERS = "others.json"

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
        "judged": config.judged,
        "seed": config.training.seed,
        "max_unreferenced_fraction": config.limits.max_unreferenced_fraction,
        "versions": versions(),
        "parts": Conversation._fields,
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
    """The conversations in a file, read one after another whenever they are iterated over.

    The file is mapped: it may be deleted meanwhile. A process that unpickles this maps it, too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self._lines = mmap(file.fileno(), 0, access=ACCESS_READ)

    def __iter__(self) -> Iterator[Conversation]:
        start = 0
        while start < len(self._lines):
            end = self._lines.find(b"\n", start)
            yield _conversation(json.loads(self._lines[start:end].decode()))
            start = end + 1

    def __reduce__(self) -> tuple[Callable[[Path], "StoredConversations"], tuple[Path]]:
        return (StoredConversations, (self._path,))


def _store(folder: Path, examples: Examples, warnings: Warnings) -> None:
    # As JSON: what outlives a job must not be able to execute anything, as a pickle can.
    with (folder / TRAIN).open("w", encoding="utf-8") as file:
        for conversation in examples.train:
            file.write(json.dumps(conversation) + "\n")
    others = {"examples": vars(examples) | {"train": []}, "warnings": warnings}
    (folder / OTHERS).write_text(json.dumps(others, default=_plain), encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return a value that JSON lacks as one that it has: records as objects, times as texts."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


def _load(folder: Path) -> tuple[Examples, Warnings]:
    others = json.loads((folder / OTHERS).read_bytes())
    fields = others["examples"]
    examples = Examples(
        **fields
        | {
            "train": StoredConversations(folder / TRAIN),
            "validation": [_conversation(parts) for parts in fields["validation"]],
            "test": [_conversation(parts) for parts in fields["test"]],
            "uncleaned": [_conversation(parts) for parts in fields["uncleaned"]],
            "overlap": [Overlap(**pair) for pair in fields["overlap"]],
            "cleaning": tuple(fields["cleaning"]),
            "of_train": _facts(fields["of_train"]),
            "of_validation": _facts(fields["of_validation"]),
            "replay": Replay(**fields["replay"]) if fields["replay"] else None,
            "stored_as": folder.name,
        }
    )
    return examples, others["warnings"]


def _facts(fields: dict[str, Any]) -> SplitFacts:
    contents = Contents.from_json(fields["contents"])
    repeats = fields["repeats"]
    repeats = Repeats(**repeats | {"first": tuple(map(tuple, repeats["first"]))})
    answers = AnswerFacts.from_json(fields["answers"])
    return SplitFacts(**fields | {"contents": contents, "repeats": repeats, "answers": answers})


def _conversation(parts: list[Any]) -> Conversation:
    """Return the conversation whose parts, and theirs, JSON has as lists."""
    id, turns, source, references, metadata, doubts, answers = parts
    return Conversation(
        id,
        tuple(map(Turn._make, turns)),
        Source._make(source),
        tuple(references),
        metadata,
        tuple(doubts),
        tuple(map(Answer._make, answers)),
    )
