"""The challenger of a night: an adapter beside the champion, and the records that it gets.

The digest of a record's id decides, and the seed. So the choice is the same whatever the shards,
workers, chunks and interruptions are, and for an id that comes again in another night.
"""

from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, Literal

from job.config.challenger_section import ONE_MERGED_ADAPTER, ChallengerSection
from job.config.commands import SummarizeConfig
from job.config.sections import StorageSection
from job.errors import ConfigError, naming_key
from job.model.fetch import Adapter, check_adapter_digest, read_adapter
from job.summarization.champion import PinnedChampion
from job.summarization.summarizer import Digests
from job.telemetry import warn_once

KEY = "challenger.adapter"
BYTES = 8  # of the hash that decides
PURPOSE = b"challenger"  # no other choice by the same ids chooses the same ones


@dataclass(frozen=True)
class Choice:
    """The choice of the records of a challenger, by the digests of their ids."""

    mode: Literal["shadow", "canary"]
    share: float
    seed: int

    @classmethod
    def of(cls, section: ChallengerSection) -> "Choice":
        """Return the choice that a config asks for."""
        return cls(section.mode, section.share, section.seed)

    def count(self, records: int) -> int:
        """Return about how many of so many records are chosen."""
        return round(self.share * records)

    def has(self, id_digest: bytes) -> bool:
        """Return True if the record with this digest of its id is chosen."""
        if not id_digest:  # no id could be read, so there is nothing to summarize
            return False
        salt = self.seed.to_bytes(blake2b.SALT_SIZE, "little")
        drawn = blake2b(id_digest, digest_size=BYTES, salt=salt, person=PURPOSE).digest()
        return int.from_bytes(drawn) < int(self.share * 2 ** (8 * BYTES))


@dataclass(frozen=True)
class Challenger:
    """The challenger that a night resolved. `followed` is what its pointer named, if it is one.

    A challenger that is the champion, since it was promoted, takes no part.
    """

    adapter: str
    digest: str
    choice: Choice
    followed: PinnedChampion | None
    is_champion: bool

    def facts(self) -> dict[str, Any]:
        """Return what a manifest says of it, beside its counts."""
        found: dict[str, Any] = {"adapter": self.adapter, "digest": self.digest}
        found |= asdict(self.choice)
        found["is_champion"] = self.is_champion
        if self.followed is not None:
            found["followed"] = asdict(self.followed)
        return found


def resolve_challenger(
    section: ChallengerSection,
    followed: PinnedChampion | None,
    weights: Digests | None,
    storage: StorageSection,
) -> tuple[Challenger, Adapter]:
    """Return the challenger of a config, with its manifest.

    `weights` are those of the night's adapter and base, None where they are not known. Raise what
    `read_adapter` raises, DataError for another digest than the config's, ConfigError for an
    adapter of another base.
    """
    uri = section.adapter if followed is None else followed.adapter
    wanted = section.adapter_digest if followed is None else followed.digest
    with naming_key(KEY):
        adapter = read_adapter(uri, storage)
        check_adapter_digest(adapter, wanted, KEY)
    if weights is not None:
        check_same_base(adapter, weights)
    is_champion = weights is not None and adapter.digest == weights.adapter
    if is_champion:
        uri = adapter.uri
        warn_once("the challenger is the adapter that serves: none is tried", adapter=uri)
    choice = Choice.of(section)
    return Challenger(adapter.uri, adapter.digest, choice, followed, is_champion), adapter


def check_same_base(adapter: Adapter, weights: Digests) -> None:
    """Raise ConfigError unless the challenger was trained on the base of the night."""
    recorded = str(adapter.base.get("digest"))
    if recorded != weights.base:
        raise ConfigError(
            f"{KEY}: {adapter.uri} is an adapter for {adapter.base['uri']} (digest "
            f"{recorded[:12]}), and this night's base has digest {weights.base[:12]}: one engine "
            "serves both adapters on one base; name a challenger for the same base"
        )


def with_challenger(config: SummarizeConfig, challenger: Challenger | None) -> SummarizeConfig:
    """Return the config with the challenger by its own URI and digest, or without one.

    Raise ConfigError if the adapter was judged merged, and the config does not say otherwise.
    """
    section = config.challenger
    if section is None:
        return config
    if challenger is None or challenger.is_champion:
        return config.model_copy(update={"challenger": None})
    if config.adapter_weights == "merged":
        raise ConfigError(
            f"{ONE_MERGED_ADAPTER} (this value is of the adapter, which was judged so: separate is "
            "a departure from that)"
        )
    resolved = {"adapter": challenger.adapter, "adapter_digest": challenger.digest}
    return config.model_copy(update={"challenger": section.model_copy(update=resolved)})
