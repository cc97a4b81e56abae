"""What a run learns from and is judged on: the conversations of both splits, cleaned and checked against each other.

Config → conversations. Needs no torch, so that the plan can ask before a GPU is paid for. Knows nothing of tokens.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from job.config.commands import TrainConfig
from job.config.sections import CleaningStep, DataSection, StorageSection, as_list
from job.conversations.cleaning import clean_all, resolve_steps
from job.conversations.read import read_strictly
from job.conversations.record import Conversation
from job.conversations.splits import Overlap, content_digest, find_overlap, hold_out
from job.errors import DataError
from job.storage.open import list_inputs
from job.telemetry import warn


@dataclass(frozen=True)
class Examples:
    """Conversations with at least one reference each, by split; their cleaning; and what was left out."""

    train: list[Conversation]
    validation: list[Conversation]
    without_reference: int  # or without text after cleaning
    overlap: list[Overlap]
    dropped_overlap: int
    cleaning: tuple[CleaningStep, ...]

    def digests(self) -> dict[str, str]:
        """Content digest by split: what a resumed run must find again."""
        return {"train": _digest(self.train), "validation": _digest(self.validation)}

    def counts(self) -> dict[str, Any]:
        """Conversations, references and turns by split, and what was left out."""
        return {
            "train": _counts(self.train),
            "validation": _counts(self.validation),
            "without_reference": self.without_reference,
            "overlapping": len(self.overlap),
            "dropped_overlap": self.dropped_overlap,
        }


def read_examples(config: TrainConfig) -> Examples:
    """Read, clean, split and check; DataError if there is nothing to learn from or the splits overlap."""
    data = config.data
    everything = _read(as_list(data.train), data, config.storage)
    others = _read(as_list(data.validation), data, config.storage) if data.validation else []
    cleaning = resolve_steps(data, everything)
    train, validation = _with_reference(everything, cleaning), _with_reference(others, cleaning)
    without = len(everything) + len(others) - len(train) - len(validation)
    if data.validation is None and train:
        train, validation = hold_out(train, data.validation_fraction, config.training.seed)
    if not train or not validation:
        raise DataError(
            f"data: {len(train)} training and {len(validation)} validation conversations have a reference summary; "
            "both need at least one (data.columns says where a table has it)"
        )
    overlap = find_overlap(train, validation)
    kept = _without_overlap(train, overlap, data.overlap)
    return Examples(kept, validation, without, overlap, len(train) - len(kept), cleaning)


def _read(uris: list[str], data: DataSection, storage: StorageSection) -> list[Conversation]:
    return read_strictly(list_inputs(uris, storage), data)


def _with_reference(conversations: list[Conversation], cleaning: tuple[CleaningStep, ...]) -> list[Conversation]:
    return clean_all([conversation for conversation in conversations if conversation.references], cleaning)


def _without_overlap(train: list[Conversation], overlap: list[Overlap], policy: str) -> list[Conversation]:
    exact = [pair for pair in overlap if pair.kind == "exact"]
    named = "; ".join(f"{pair.train_id} = {pair.validation_id}" for pair in (exact or overlap)[:5])
    if exact and policy == "error":
        raise DataError(
            f"data: {len(exact)} training conversations also stand in validation ({named}): scores would flatter; "
            "take them out, or set data.overlap: drop (from train) or allow"
        )
    if overlap and policy != "drop":
        warn("train and validation overlap", conversations=len(overlap), exact=len(exact), examples=named)
    if policy != "drop":
        return train
    overlapping = {pair.train_id for pair in overlap}
    kept = [conversation for conversation in train if conversation.id not in overlapping]
    if not kept:
        raise DataError("data: every training conversation also stands in validation; nothing is left to learn from")
    return kept


def _counts(conversations: Iterable[Conversation]) -> dict[str, int]:
    records = list(conversations)
    return {
        "conversations": len(records),
        "references": sum(len(record.references) for record in records),
        "turns": sum(len(record.turns) for record in records),
    }


def _digest(conversations: Iterable[Conversation]) -> str:
    digest = hashlib.sha256()
    for conversation in conversations:
        digest.update(repr((content_digest(conversation), conversation.references)).encode())
    return digest.hexdigest()
