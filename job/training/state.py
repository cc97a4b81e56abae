"""What every part of a training run needs to know of it. Knows nothing of what is done with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.config.commands import TrainConfig
from job.model import Base, Tokenizer
from job.prompt import Prompt
from job.storage.store import Store
from job.training import journal
from job.training.examples import Examples
from job.training.rows import Rows


@dataclass(frozen=True)
class Run:
    """A run that has read and encoded everything."""

    config: TrainConfig
    store: Store  # the run's folder, <output>/<run>
    work: Path
    base: Base
    tokenizer: Tokenizer
    prompt: Prompt
    examples: Examples
    splits: tuple[Rows, Rows]
    processes: int

    def identity(self) -> dict[str, Any]:
        """What the adapter depends on, as a checkpoint carries it."""
        wanted = journal.fingerprint(self.config, self.examples.digests())
        return {"fingerprint": journal.digest(wanted), "base": self.base.digest, "processes": self.processes}

    def counts(self) -> dict[str, Any]:
        """Conversations, references, turns, rows and tokens by split."""
        counts = self.examples.counts()
        for split, rows in zip(("train", "validation"), self.splits, strict=True):
            counts[split] |= rows.counts()
        return counts
