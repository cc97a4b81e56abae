"""The champion of a night: a pointer is resolved once, for all its workers and all its attempts.

The first worker records what the pointer names in a pin, a small file in the folder of the night's
chunks, by one guarded write and before any chunk is cut. Whoever comes later follows the pin, even
if the pointer was switched meanwhile, and after the night its manifest, in place of the pin. The
name of a pin depends on everything that decides what is written except the weights: that is the
same night.

A challenger may be named by a pointer, too. It is resolved in the same way, with a pin of its own.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from job.config.commands import SummarizeConfig
from job.errors import (
    AlreadyExistsError,
    DamagedError,
    DataError,
    MissingError,
    RetryError,
    naming_key,
)
from job.inference.taken import serving_of
from job.model.champion import is_pointer, now
from job.model.fetch import read_adapter
from job.storage.folders import read_manifest_file
from job.storage.keys import below
from job.storage.store import read_or_none
from job.summarization.identity import CHALLENGER, settings_fingerprint
from job.summarization.output import Output
from job.summarization.summarizer import Digests

FACT = "champion"  # of a night's manifest
FOLLOWED = "followed"  # of the challenger's facts there

Role = Literal["champion", "challenger"]  # of what a pointer names
KINDS = {
    "pointer": str,
    "adapter": str,
    "digest": str,
    "version": int,
    "resolved_at": str,
    "serving": dict | None,
}


@dataclass(frozen=True)
class PinnedChampion:
    """The champion that a night follows: what its pointer named when the night began.

    `serving` has the settings that it was evaluated with, None if the pointer has none. `doubts` is
    what speaks against it, by `Promotion.doubts`.
    """

    pointer: str
    adapter: str
    digest: str
    version: int
    resolved_at: str
    serving: Mapping[str, Any] | None
    doubts: Sequence[str] = ()

    @classmethod
    def from_json(cls, raw: Any) -> Self:
        """Parse what `asdict` returned. Raise ValueError for anything else."""
        if not isinstance(raw, Mapping):
            raise ValueError("it is no JSON object")
        for name, kinds in KINDS.items():
            if not isinstance(raw.get(name), kinds):
                raise ValueError(f"{name} is missing or wrong")
        doubts = raw.get("doubts", [])  # earlier versions recorded none
        if not isinstance(doubts, list) or not all(isinstance(doubt, str) for doubt in doubts):
            raise ValueError("doubts is wrong")
        return cls(**{name: raw[name] for name in KINDS}, doubts=doubts)


def find_champion(config: SummarizeConfig, output: Output) -> PinnedChampion | None:
    """Return the champion that the night at `output` follows, or what the pointer names now.

    Return None if the config's adapter is no pointer. Raise what `read_adapter` raises, and
    DataError if the champion is not the adapter of `adapter_digest`.
    """
    return _resolve(config, output, config.adapter, config.adapter_digest, "champion")


def find_followed_challenger(config: SummarizeConfig, output: Output) -> PinnedChampion | None:
    """Return what `find_champion` does, of the pointer that the config's challenger is."""
    section = config.challenger
    if section is None:
        return None
    return _resolve(config, output, section.adapter, section.adapter_digest, "challenger")


def _resolve(
    config: SummarizeConfig,
    output: Output,
    pointer: str | None,
    wanted: str | None,
    role: Role,
) -> PinnedChampion | None:
    if pointer is None or not is_pointer(pointer):
        return None
    key = "adapter" if role == "champion" else "challenger.adapter"
    champion = _published(pointer, output, role) or read_pin(config, output, pointer, role)
    if champion is None:
        with naming_key(key):
            adapter = read_adapter(pointer, config.storage)
        assert adapter.pointer is not None
        current = adapter.pointer.champion
        champion = PinnedChampion(
            pointer=pointer,
            adapter=adapter.uri,
            digest=adapter.digest,
            version=current.version,
            resolved_at=now(),
            serving=serving_of(adapter.pointer),
            doubts=current.doubts(),
        )
    if wanted is not None and not champion.digest.startswith(wanted):
        raise DataError(
            f"{key}: the champion of {pointer} is {champion.adapter} with digest "
            f"{champion.digest}, and {key}_digest wants {wanted}: remove {key}_digest to "
            "follow the pointer, or switch the champion back"
        )
    return champion


def follow(config: SummarizeConfig, champion: PinnedChampion | None) -> SummarizeConfig:
    """Return the config with the champion as its adapter, and with the digest that it must have."""
    if champion is None:
        return config
    return config.model_copy(
        update={"adapter": champion.adapter, "adapter_digest": champion.digest}
    )


def pin_champion(
    config: SummarizeConfig, output: Output, champion: PinnedChampion, role: Role = "champion"
) -> None:
    """Record the champion for all workers of the night, unless one is recorded: that one counts."""
    content = json.dumps(asdict(champion), indent=2) + "\n"
    with suppress(AlreadyExistsError):
        key = pin_key(config, output, champion.pointer, role)
        output.store.write(key, content.encode(), if_absent=True)


def check_same_champion(
    config: SummarizeConfig, output: Output, champion: PinnedChampion, role: Role = "champion"
) -> None:
    """Raise RetryError if the night's other workers follow another champion.

    That can be in a store that ignores conditional writes.
    """
    pinned = read_pin(config, output, champion.pointer, role)
    if pinned is not None and pinned.digest != champion.digest:
        raise RetryError(
            f"{output.uri}: another worker began this night with another {role}, "
            f"{pinned.adapter} (this store ignores conditional writes): run again"
        )


def read_pin(
    config: SummarizeConfig, output: Output, pointer: str, role: Role = "champion"
) -> PinnedChampion | None:
    """Return the champion that a night in progress follows, None if it has not begun."""
    key = pin_key(config, output, pointer, role)
    content = read_or_none(output.store, key)
    if content is None:
        return None
    try:
        return PinnedChampion.from_json(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise DamagedError(
            f"{output.store.uri}/{key} records the {role} of this night and cannot be "
            f"understood ({error}): remove it, and the night begins with the {role} of now"
        ) from error


def _published(pointer: str, output: Output, role: Role) -> PinnedChampion | None:
    """Return the champion of the night that is published there, if it followed this pointer.

    A night without records is done again, and follows nobody.
    """
    try:
        facts = read_manifest_file(output.store, output.manifest).extra
        found = facts.get(FACT) if role == "champion" else facts[CHALLENGER].get(FOLLOWED)
        champion = PinnedChampion.from_json(found)
        has_records = facts["counts"]["records"] > 0
    except (MissingError, DamagedError, ValueError, TypeError, KeyError):
        return None  # whoever looks at the output itself reports what is wrong with it
    return champion if has_records and champion.pointer == pointer else None


def pin_key(config: SummarizeConfig, output: Output, pointer: str, role: Role = "champion") -> str:
    """Return where the pin of a night is, in the store of its output."""
    # What the config names in place of the weights: the pointers, whatever they name now.
    section = config.challenger
    named = None if section is None else section.adapter
    written = pointer if role == "champion" else str(config.adapter)
    night = settings_fingerprint(config, Digests(None, written), named)
    return below(output.chunks, f"{role}-{night}.json")
