"""The state of a training run that its parts share: config, storage, base, prompt and data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.config.commands import TrainConfig
from job.identity import json_digest
from job.model import Tokenizer
from job.model.fetch import Base
from job.prompt.template import Prompt
from job.storage.store import Store
from job.training import journal
from job.training.examples import Examples
from job.training.rows import Rows


@dataclass(frozen=True)
class Run:
    """A run whose data has been read and encoded."""

    config: TrainConfig
    store: Store  # the run's folder, <output>/<run>
    work: Path
    base: Base
    tokenizer: Tokenizer
    prompt: Prompt
    examples: Examples
    splits: tuple[Rows, Rows]  # training, validation
    processes: int

    def identity(self) -> dict[str, Any]:
        """Return all that the adapter depends on, as JSON. Every checkpoint carries it."""
        wanted = journal.fingerprint(self.config, self.examples.digests())
        return {
            "fingerprint": json_digest(wanted),
            "base": self.base.digest,
            "processes": self.processes,
        }

    def counts(self) -> dict[str, Any]:
        """Return the numbers of conversations, references, turns, rows and tokens, by split."""
        counts = self.examples.counts()
        for split, rows in zip(("train", "validation"), self.splits, strict=True):
            counts[split] |= rows.counts()
        return counts


@dataclass
class Attempt:
    """How far this attempt is, for run.json.

    `left_out` has the reason by name (`scores`, `report`) of what could not be published. `committed` is
    the newest step in storage, and `entry` what run.json holds; the first process alone knows both.
    """

    step: int
    committed: int
    timings: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    entry: journal.Journal | None = None
