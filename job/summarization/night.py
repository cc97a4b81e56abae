"""A night: what is summarized, where to, and with which weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from job.config.commands import SummarizeConfig
from job.storage.keys import below
from job.storage.open import InputFile
from job.storage.selection import LeftOut
from job.summarization.chunk_store import ChunkStore
from job.summarization.chunks import Chunks
from job.summarization.identity import identity, settings_fingerprint
from job.summarization.output import Output
from job.summarization.records import Counts
from job.summarization.summarizer import Digests


@dataclass(frozen=True)
class Night:
    """One run of `recap summarize`, by any number of workers in any number of attempts."""

    config: SummarizeConfig
    output: Output
    digests: Digests  # of the weights
    left_out: LeftOut = field(default_factory=LeftOut)  # files below the input that are not read

    @property
    def settings_folder(self) -> str:
        """The folder of the output's store for all chunks that are made with these settings."""
        return below(self.output.chunks, settings_fingerprint(self.config, self.digests))

    def identity(self, files: Sequence[InputFile]) -> dict[str, Any]:
        """Return what decides the rows of the output, with these files as the input."""
        return identity(self.config, files, self.digests)

    def chunk_store(self, chunks: Chunks) -> ChunkStore:
        """Return the folder of the outcomes of these chunks."""
        return ChunkStore(self.output.store, chunks.folder)

    def has_too_many_rejects(self, counts: Counts) -> bool:
        """Return True if the share of rejects among the records not skipped is too large."""
        allowed = self.config.limits.max_reject_fraction
        return counts.rejected > allowed * (counts.records - counts.skipped)

    def remedy(self) -> str:
        """Return what a person should do if committed chunks do not add up to the input."""
        where = f"{self.output.store.uri}/{self.settings_folder}"
        return (
            f"remove {where} and run again; if it ends so again, this is a bug in recap: please "
            "report it"
        )
