"""Fetch a base or an adapter to disk, and verify it.

An adapter's manifest has the digests of its files and records its base, so most checks need no
weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.config.sections import AdapterModelSection, StorageSection
from job.errors import ConfigError, DamagedError, DataError
from job.identity import json_digest, sha256_of
from job.model.files import HUB_ID, hub_id_of, weights_digest
from job.storage.folders import Manifest, fetch_folder, fetch_prefix, is_folder_of, read_manifest
from job.storage.hub_errors import hub_errors
from job.storage.open import open_store
from job.storage.store import Store
from job.telemetry import progress

BASE_PATTERNS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.py")
BASE_KEY = "base"  # of an adapter manifest's extra


@dataclass(frozen=True)
class Base:
    """A base on disk: its name in the config, the Hub's commit, the digest of its weights."""

    uri: str
    revision: str | None
    digest: str
    path: Path

    def identity(self) -> dict[str, str | None]:
        """Return what an adapter records of its base, without the path in a cache."""
        return {"uri": self.uri, "revision": self.revision, "digest": self.digest}


@dataclass(frozen=True)
class Adapter:
    """A published adapter, by its manifest: its weights need not be on disk."""

    uri: str
    store: Store
    manifest: Manifest

    @property
    def digest(self) -> str:
        """The digest over names and contents of its files."""
        return json_digest({name: file.sha256 for name, file in self.manifest.files.items()})

    @property
    def base(self) -> Mapping[str, Any]:
        """The base that it was trained on, as `Base.identity` returned it."""
        base: Mapping[str, Any] = self.manifest.extra[BASE_KEY]
        return base


def fetch_base(uri: str, revision: str | None, storage: StorageSection, cache: Path) -> Base:
    """Bring a base to disk and return it: a folder stays, s3:// and the Hub go through a cache.

    Raise MissingError, DataError, ForbiddenError or RetryError; ConfigError for a revision of
    anything but a Hub id.
    """
    commit = None
    hub_id = hub_id_of(uri, revision)
    if hub_id is not None:
        path = _fetch_from_hub(hub_id, revision)
        commit = path.name  # the Hub's cache names a snapshot's folder by its commit
    elif uri.startswith("s3://"):
        path = cache / sha256_of(uri)[:16]
        with progress(f"fetching {uri}", None, "B") as bar:
            fetch_prefix(open_store(uri, storage), "", path, BASE_PATTERNS, bar.advance)
    else:
        path = Path(uri)
    return Base(uri, commit, weights_digest(path, uri), path)


def _fetch_from_hub(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    at_revision = f" at revision '{revision}'" if revision else ""
    with hub_errors(f"model.base: '{hub_id}'{at_revision}"):
        folder = snapshot_download(hub_id, revision=revision, allow_patterns=list(BASE_PATTERNS))
        return Path(folder)


def read_adapter(uri: str, storage: StorageSection) -> Adapter:
    """Read the manifest of an adapter in a folder, under s3://, or in a repository of the Hub.

    Raise DamagedError if it records no base.
    """
    is_on_hub = HUB_ID.fullmatch(uri) and not Path(uri).is_dir()
    store = open_store(f"hf://{uri}" if is_on_hub else uri, storage)
    manifest = read_manifest(store, "")
    recorded = manifest.extra.get(BASE_KEY)
    if not isinstance(recorded, dict) or "uri" not in recorded:
        raise DamagedError(
            f"{uri}: its manifest names no base: this is no adapter folder that recap published"
        )
    return Adapter(uri, store, manifest)


def check_adapter_digest(adapter: Adapter, wanted: str | None) -> None:
    """Raise DataError unless the adapter's digest begins with `wanted`; None accepts any."""
    if wanted is not None and not adapter.digest.startswith(wanted):
        raise DataError(
            f"adapter: {adapter.uri} has digest {adapter.digest}, and adapter_digest wants "
            f"{wanted}: the adapter was replaced, or the digest is another one's; correct "
            "whichever is wrong"
        )


def fetch_adapter(adapter: Adapter, cache: Path) -> Path:
    """Bring an adapter to disk and return its folder.

    The cached folder is verified each time by the manifest in the store, and fetched again if it
    differs.
    """
    folder = cache / f"adapter-{adapter.digest[:16]}"
    if not is_folder_of(folder, adapter.manifest):
        size = sum(file.size for file in adapter.manifest.files.values())
        with progress(f"fetching {adapter.uri}", size, "B") as bar:
            fetch_folder(adapter.store, "", folder, bar.advance)
    return folder


def fetch_base_of(
    adapter: Adapter,
    section: AdapterModelSection,
    storage: StorageSection,
    cache: Path,
) -> Base:
    """Bring the base of an adapter to disk: the one that it records, or `section.base`.

    Raise ConfigError if that is not the base that the adapter was trained on.
    """
    name, revision = name_base_of(adapter, section)
    base = fetch_base(name, revision, storage, cache)
    check_same_base(adapter, section, base.digest)
    return base


def name_base_of(adapter: Adapter, section: AdapterModelSection) -> tuple[str, str | None]:
    """Return name and revision of the base to load for an adapter.

    Raise ConfigError for a revision other than the recorded one.
    """
    if section.base is not None:
        return section.base, section.revision
    uri, revision = adapter.base["uri"], adapter.base.get("revision")
    if section.revision and section.revision != revision:
        raise ConfigError(
            f"model.revision: {adapter.uri} is an adapter for {uri} at revision {revision}, got "
            f"{section.revision}; give that one, or none"
        )
    return uri, revision


def check_same_base(adapter: Adapter, section: AdapterModelSection, digest: str) -> None:
    """Raise ConfigError if `digest` is not that of the base which the adapter records."""
    recorded = adapter.base.get("digest")
    if recorded == digest:
        return
    uri = adapter.base["uri"]
    found = f"model.base, {section.base}," if section.base else f"the base there now, {uri},"
    raise ConfigError(
        f"{adapter.uri} is an adapter for {uri} (digest {str(recorded)[:12]}), but {found} has "
        f"digest {digest[:12]}: give the base that it was trained on, or train again"
    )
