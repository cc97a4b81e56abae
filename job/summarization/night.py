"""A night: what is summarized, where to, and with which weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from job.config.commands import SummarizeConfig
from job.inference.taken import Filled, fill
from job.storage.keys import below
from job.storage.open import InputFile
from job.storage.scratch import cache_folder
from job.storage.selection import LeftOut
from job.summarization.champion import PinnedChampion, find_champion, follow, pin_key
from job.summarization.chunk_store import ChunkStore
from job.summarization.chunks import Chunks
from job.summarization.identity import identity, settings_fingerprint
from job.summarization.output import Output
from job.summarization.records import Counts
from job.summarization.summarizer import Digests, fetch_digests


def begin_night(
    config: SummarizeConfig, output: Output, left_out: LeftOut | None = None
) -> "Night":
    """Return the night of this config, with the weights that it uses. Loads no model.

    If its adapter is a pointer, they are those of the champion when the night began, or of now.
    """
    champion = find_champion(config, output)
    followed = follow(config, champion)
    digests = fetch_digests(followed, cache_folder())
    filled = fill(followed, None if champion is None else champion.serving)
    pin = None if champion is None else pin_key(config, output, champion.pointer)
    return Night(filled, output, digests, left_out or LeftOut(), champion, pin)


@dataclass(frozen=True)
class Night:
    """One run of `recap summarize`, by any number of workers in any number of attempts."""

    filled: Filled[SummarizeConfig]
    output: Output
    digests: Digests  # of the weights
    left_out: LeftOut = field(default_factory=LeftOut)  # files below the input that are not read
    champion: PinnedChampion | None = None  # that the night follows, if its adapter is a pointer
    pin: str | None = None  # key of the file that records this champion until the night is done

    @property
    def config(self) -> SummarizeConfig:
        """The config with the values that decide a summary, wherever they come from."""
        return self.filled.config

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
        return counts.rejected > allowed * counts.new

    def remedy(self) -> str:
        """Return what a person should do if committed chunks do not add up to the input."""
        where = f"{self.output.store.uri}/{self.settings_folder}"
        return (
            f"remove {where} and run again; if it ends so again, this is a bug in recap: please "
            "report it"
        )
