"""The record that a training leaves beside its adapter: run.json, read by others than its run."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from job.config.commands import TrainConfig
from job.config.sections import StorageSection
from job.errors import DamagedError, ForbiddenError, MissingError
from job.storage.open import open_store

FILE = "run.json"
ADAPTER = "adapter"  # the folder beside it


@dataclass(frozen=True)
class TrainingRecord:
    """The config of a training, with the storage of the reader, and its other facts.

    The run may have had another address for the same storage.
    """

    config: TrainConfig
    facts: dict[str, Any]

    @property
    def start(self) -> str | None:
        """The adapter that the training started from, if it did."""
        start = self.facts.get("start")
        return str(start["adapter"]) if start else None

    def files_digest(self, split: str) -> str | None:
        """Return the digest of the files of a split as they were then, if it is recorded."""
        found = self.facts.get("files") or {}
        return found.get(split)


def read_training_record(adapter: str, storage: StorageSection) -> TrainingRecord | None:
    """Read the record beside an adapter; None if there is none. Raise DamagedError for others."""
    folder, _, name = adapter.rstrip("/").rpartition("/")
    if name != ADAPTER or not folder:
        return None
    try:
        content = open_store(folder, storage).read(FILE)
    except (MissingError, ForbiddenError):
        return None
    try:
        raw = json.loads(content)
        config = TrainConfig.model_validate(raw["config"])
        record = TrainingRecord(
            config.model_copy(update={"storage": storage}), dict(raw.get("facts") or {})
        )
        _ = record.start, record.files_digest("train")
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise DamagedError(
            f"{folder}/{FILE} is of another version of recap and cannot be understood "
            f"({type(error).__name__})"
        ) from error
    return record
