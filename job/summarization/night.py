"""A night: what is summarized, where to, and with which weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from job.config.commands import SummarizeConfig
from job.inference.taken import Filled, fill, judged_serving
from job.model.fetch import Adapter
from job.storage.keys import below
from job.storage.open import InputFile
from job.storage.scratch import cache_folder
from job.storage.selection import LeftOut
from job.summarization.challenger import Challenger, resolve_challenger, with_challenger
from job.summarization.champion import (
    PinnedChampion,
    Role,
    check_same_champion,
    find_champion,
    find_followed_challenger,
    follow,
    pin_champion,
    pin_key,
)
from job.summarization.chunk_store import ChunkStore
from job.summarization.chunks import Chunks
from job.summarization.identity import identity, settings_fingerprint
from job.summarization.output import Output
from job.summarization.records import Counts
from job.summarization.reward import resolve_reward, with_reward
from job.summarization.summarizer import Digests, fetch_digests


def begin_night(
    config: SummarizeConfig, output: Output, left_out: LeftOut | None = None
) -> "Night":
    """Return the night of this config, with the weights that it uses. Loads no model.

    If its adapter is a pointer, they are those of the champion when the night began, or of now. The
    same holds for its challenger. Raise ConfigError if that cannot be served beside the adapter.
    """
    champion = find_champion(config, output)
    followed = follow(config, champion)
    digests = fetch_digests(followed, cache_folder())
    filled = fill(followed, None if champion is None else champion.serving)
    pinned: dict[Role, PinnedChampion] = {}
    if champion is not None:
        pinned["champion"] = champion

    pointed = find_followed_challenger(config, output)
    if pointed is not None:
        pinned["challenger"] = pointed
    challenger = None
    if config.challenger is not None:
        challenger, adapter = resolve_challenger(
            config.challenger, pointed, digests, config.storage
        )
        serving = judged_serving(adapter, None if pointed is None else pointed.serving)
        filled = replace(filled, challenger_judged=serving)
    reward = resolve_reward(config)
    resolved = with_reward(with_challenger(filled.config, challenger), reward)
    filled = replace(filled, config=resolved)
    left_out = left_out or LeftOut()
    return Night(config, filled, output, digests, left_out, pinned, challenger, reward)


@dataclass(frozen=True)
class Night:
    """One run of `recap summarize`, by any number of workers in any number of attempts.

    `written` is the config as a person wrote it. `pinned` has what its pointers named when the
    night began. `named` is the challenger of the config, also if that is the champion by now.
    """

    written: SummarizeConfig
    filled: Filled[SummarizeConfig]
    output: Output
    digests: Digests  # of the weights
    left_out: LeftOut = field(default_factory=LeftOut)  # files below the input that are not read
    pinned: Mapping[Role, PinnedChampion] = field(default_factory=dict)
    named: Challenger | None = None
    reward: Adapter | None = None  # the reward model that chooses among candidates

    @property
    def champion(self) -> PinnedChampion | None:
        """The champion that the night follows, if its adapter is a pointer."""
        return self.pinned.get("champion")

    @property
    def challenger(self) -> Challenger | None:
        """The challenger that summarizes some of the records; None if there is none."""
        return None if self.named is None or self.named.is_champion else self.named

    def pin(self) -> None:
        """Record what the pointers name for all workers, unless that is recorded already."""
        for role, champion in self.pinned.items():
            pin_champion(self.written, self.output, champion, role)

    def unpin(self) -> None:
        """Delete the files that record what the pointers name."""
        for role, champion in self.pinned.items():
            self.output.store.delete(pin_key(self.written, self.output, champion.pointer, role))

    def check_pinned(self) -> None:
        """Raise RetryError if the night's other workers follow another champion or challenger."""
        for role, champion in self.pinned.items():
            check_same_champion(self.written, self.output, champion, role)

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
