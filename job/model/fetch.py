"""Fetch a base or an adapter to disk, and verify it.

An adapter's manifest has the digests of its files and records its base, so most checks need no
weights.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import Any

from job.config.sections import AdapterModelSection, ModelSection, StorageSection
from job.errors import ConfigError, DamagedError, DataError, MissingError
from job.identity import changed_names, json_digest, sha256_of
from job.model.adapter_files import check_adapter_files
from job.model.champion import Pointer, is_pointer, read_pointer
from job.model.files import (
    ALL_WEIGHTS,
    GENERATION_CONFIG,
    HUB_ID,
    INDEX,
    SMALL_FILES,
    TEMPLATE_FOLDER,
    WEIGHTS,
    BaseFiles,
    check_config,
    check_names,
    files_in_folder,
    files_in_store,
    hub_id_of,
    small_names,
    tokenizer_names,
    weight_names,
    weights_digest,
)
from job.model.kinds import check_writes_summaries, is_reward_model
from job.model.remote_code import check_code
from job.storage.atomic import locked
from job.storage.folders import (
    Manifest,
    fetch_folder,
    fetch_prefix,
    is_folder_of,
    read_manifest,
    sha256_file,
)
from job.storage.hub_errors import hub_errors
from job.storage.open import open_store
from job.storage.store import Store
from job.telemetry import progress

BASE_KEY = "base"  # of an adapter manifest's extra
SUBFOLDERS = ["*/*"]  # of a repository on the Hub: nothing there is loaded
CODE = "*.py"
SMALL_ON_HUB = (*SMALL_FILES, INDEX)

AnyModelSection = ModelSection | AdapterModelSection


@dataclass(frozen=True)
class Base:
    """A base on disk: its name in the config, the Hub's commit, digests of what is loaded.

    `digest` is that of config and weights. `tokenizer_files` has the SHA-256 of each file of the
    tokenizer and of its chat templates, `generation_digest` that of generation_config.json.
    """

    uri: str
    revision: str | None
    digest: str
    path: Path
    tokenizer_files: Mapping[str, str] = field(default_factory=dict)
    generation_digest: str | None = None

    @property
    def tokenizer_digest(self) -> str | None:
        """The digest of the tokenizer's files and chat templates; None without any."""
        return json_digest(dict(self.tokenizer_files)) if self.tokenizer_files else None

    def identity(self) -> dict[str, Any]:
        """Return what an adapter records of its base, without the path in a cache."""
        return {
            "uri": self.uri,
            "revision": self.revision,
            "digest": self.digest,
            "tokenizer_digest": self.tokenizer_digest,
            "tokenizer_files": dict(self.tokenizer_files),
            "generation_digest": self.generation_digest,
        }


@dataclass(frozen=True)
class Adapter:
    """A published adapter, by its manifest: its weights need not be on disk.

    `pointer` is set if a pointer named it: it is the champion, and `uri` is its own.
    """

    uri: str
    store: Store
    manifest: Manifest
    pointer: Pointer | None = None

    @property
    def digest(self) -> str:
        """The digest over names and contents of its files."""
        return adapter_digest(self.manifest)

    @property
    def base(self) -> Mapping[str, Any]:
        """The base that it was trained on, as `Base.identity` returned it."""
        base: Mapping[str, Any] = self.manifest.extra[BASE_KEY]
        return base


def adapter_digest(manifest: Manifest) -> str:
    """Return the digest of an adapter: that over names and contents of its files."""
    return json_digest({name: file.sha256 for name, file in manifest.files.items()})


def fetch_base(
    uri: str,
    revision: str | None,
    storage: StorageSection,
    cache: Path,
    trust_remote_code: bool = False,
    every_weight: bool = False,
) -> Base:
    """Bring a base to disk and return it: a folder stays, s3:// and the Hub go through a cache.

    Fetches what is loaded and nothing else: modules of Python with `trust_remote_code` only, weight
    files that are not loaded with `every_weight` only, which also counts them in the digest. Raise
    MissingError, DataError, ForbiddenError or RetryError; ConfigError for a revision of anything
    but a Hub id.
    """
    more = [CODE] if trust_remote_code else []
    if every_weight:
        more.append(ALL_WEIGHTS)
    commit = None
    hub_id = hub_id_of(uri, revision)
    if hub_id is not None:
        path = _fetch_from_hub(hub_id, revision, uri, more)
        commit = path.name  # the Hub's cache names a snapshot's folder by its commit
    elif uri.startswith("s3://"):
        store = open_store(uri, storage)
        files = files_in_store(store, uri)
        check_code(files, trust_remote_code)
        weights = check_names(files)
        keys = [*small_names(files), *files.matching((INDEX, *more)), *weights]
        path = _fetch_keys(store, keys, cache / sha256_of(uri)[:16])
    else:
        path = Path(uri)
        check_code(files_in_folder(path, uri), trust_remote_code)
    digest = weights_digest(path, uri, every_weight, cache, is_in_hub_cache=hub_id is not None)
    return _with_small_digests(Base(uri, commit, digest, path))


def fetch_small_files(
    uri: str, revision: str | None, storage: StorageSection, folder: Path
) -> Path:
    """Bring a base's config, tokenizer and chat templates to `folder`, but no weights and no code.

    Return the folder that has them: that of the base itself if it is on this machine, else
    `folder`. Raise what `fetch_base` raises.
    """
    store, files = open_base(uri, revision, storage)
    check_config(files)
    if store is None:
        return Path(uri)
    for key in small_names(files):
        store.download(key, folder / key)
    return folder


def open_base(
    uri: str, revision: str | None, storage: StorageSection
) -> tuple[Store | None, BaseFiles]:
    """Return what `open_remote_base` does, and the files of the base."""
    store = open_remote_base(uri, revision, storage)
    files = files_in_store(store, uri) if store else files_in_folder(Path(uri), uri)
    return store, files


def small_identity(uri: str, folder: Path) -> dict[str, Any]:
    """Return what `Base.identity` has of a base's small files, which are in `folder`."""
    identity = _with_small_digests(Base(uri, None, "", folder)).identity()
    return {key: value for key, value in identity.items() if key not in ("digest", "revision")}


def open_remote_base(uri: str, revision: str | None, storage: StorageSection) -> Store | None:
    """Return the store of a base under s3:// or on the Hub; None for a folder here.

    Raise what `hub_id_of` raises.
    """
    hub_id = hub_id_of(uri, revision)
    if hub_id:
        at_revision = f"@{revision.replace('/', '%2F')}" if revision else ""
        return open_store(f"hf://{hub_id}{at_revision}", storage)
    return open_store(uri, storage) if uri.startswith("s3://") else None


def _fetch_from_hub(hub_id: str, revision: str | None, uri: str, more: Sequence[str]) -> Path:
    """Bring a base from the Hub to the Hub's cache, first what says which files are loaded."""

    def fetch(at: str | None, allow: Sequence[str], ignore: Sequence[str] = ()) -> Path:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                hub_id,
                revision=at,
                endpoint=os.environ.get("HF_ENDPOINT"),
                allow_patterns=list(allow),
                ignore_patterns=list(ignore),
            )
        )

    at_revision = f" at revision '{revision}'" if revision else ""
    with hub_errors(f"model.base: '{hub_id}'{at_revision}"):
        path = fetch(revision, SMALL_ON_HUB, SUBFOLDERS)
        check_code(files_in_folder(path, uri), CODE in more)
        if more:
            fetch(path.name, more, SUBFOLDERS)
        fetch(path.name, [WEIGHTS, f"{TEMPLATE_FOLDER}*.jinja"])
        # Only now is it known if there are shards to be loaded: transformers prefers the one file.
        shards = weight_names(files_in_folder(path, uri))
        if shards != [WEIGHTS]:
            fetch(path.name, [escape(name) for name in shards])
    return path


def _fetch_keys(store: Store, keys: Sequence[str], path: Path) -> Path:
    with progress(f"fetching {store.uri}", None, "B") as bar:
        fetch_prefix(store, "", path, tuple(map(escape, keys)), bar.advance)
    return path


def _with_small_digests(base: Base) -> Base:
    files = files_in_folder(base.path, base.uri)
    tokenizer = {name: sha256_file(base.path / name) for name in tokenizer_names(files)}
    generation = None
    if GENERATION_CONFIG in files.sizes:
        generation = sha256_file(base.path / GENERATION_CONFIG)
    return replace(base, tokenizer_files=tokenizer, generation_digest=generation)


def read_adapter(
    uri: str,
    storage: StorageSection,
    check: Callable[[Manifest, str], None] = check_writes_summaries,
) -> Adapter:
    """Read the manifest of an adapter in a folder, under s3://, or in a repository of the Hub.

    A URI of a pointer means the champion that it names now. Raise DamagedError if the manifest
    records no base, ConfigError for a reward model, DataError if the champion was replaced.
    """
    if is_pointer(uri):
        return read_champion(read_pointer(uri, storage), storage)
    is_on_hub = HUB_ID.fullmatch(uri) and not Path(uri).is_dir()
    store = open_store(f"hf://{uri}" if is_on_hub else uri, storage)
    manifest = read_manifest(store, "")
    recorded = manifest.extra.get(BASE_KEY)
    if not isinstance(recorded, dict) or "uri" not in recorded:
        raise DamagedError(
            f"{uri}: its manifest names no base: this is no adapter folder that recap published"
        )
    check(manifest, uri)
    return Adapter(uri, store, manifest)


def read_champion(pointer: Pointer, storage: StorageSection) -> Adapter:
    """Read the manifest of the champion. Raise DataError if it was replaced since its promotion."""
    champion = pointer.champion
    remedy = (
        f"put it back, or name the one that shall serve: recap champion rollback {pointer.uri}, or "
        "recap champion set"
    )
    try:
        adapter = read_adapter(champion.adapter, storage)
    except MissingError as error:
        raise MissingError(f"{pointer.uri}: its champion is gone ({error}): {remedy}") from error
    if adapter.digest != champion.digest:
        raise DataError(
            f"{pointer.uri}: the champion {champion.adapter} was promoted with digest "
            f"{champion.digest}, and has {adapter.digest} now: it was replaced; {remedy}"
        )
    return replace(adapter, pointer=pointer)


def check_adapter_digest(adapter: Adapter, wanted: str | None, key: str = "adapter") -> None:
    """Raise DataError unless the adapter's digest begins with `wanted`; None accepts any.

    `key` is the config's that names the adapter.
    """
    if wanted is not None and not adapter.digest.startswith(wanted):
        raise DataError(
            f"{key}: {adapter.uri} has digest {adapter.digest}, and {key}_digest (or what "
            f"its pointer named when this night began) wants {wanted}: it was replaced, or the "
            "digest is another one's; correct whichever is wrong"
        )


def fetch_adapter(adapter: Adapter, cache: Path) -> Path:
    """Bring an adapter to disk and return its folder.

    The cached folder is verified each time by the manifest in the store, and fetched again if it
    differs. Of several processes, one fetches while the others wait. Raise DamagedError for files
    that recap does not write.
    """
    folder = cache / f"adapter-{adapter.digest[:16]}"
    if not is_folder_of(folder, adapter.manifest):
        with locked(cache):
            size = sum(file.size for file in adapter.manifest.files.values())
            with progress(f"fetching {adapter.uri}", size, "B") as bar:
                fetch_folder(adapter.store, "", folder, bar.advance)
    check_adapter_files(folder, adapter.uri, is_reward_model(adapter.manifest))
    return folder


def fetch_base_of(
    adapter: Adapter,
    section: AnyModelSection,
    storage: StorageSection,
    cache: Path,
) -> Base:
    """Bring the base of an adapter to disk: the one that it records, or `section.base`.

    Raise ConfigError if that is not the base that the adapter was trained on.
    """
    name, revision = name_base_of(adapter, section)
    trust = section.trust_remote_code
    base = fetch_base(name, revision, storage, cache, trust)
    if base.digest != adapter.base.get("digest"):
        # Earlier versions also fetched weight files that are not loaded, and their digest of a base
        # was over those, too.
        base = fetch_base(name, revision, storage, cache, trust, every_weight=True)
    check_same_base(adapter, section, base)
    return base


def name_base_of(adapter: Adapter, section: AnyModelSection) -> tuple[str, str | None]:
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


def check_small_files(adapter: Adapter, section: AnyModelSection, folder: Path) -> None:
    """Raise ConfigError if the small files of a base are not those which the adapter records."""
    recorded = adapter.base
    base = Base(recorded["uri"], recorded.get("revision"), recorded.get("digest", ""), folder)
    check_same_base(adapter, section, _with_small_digests(base))


def check_same_base(adapter: Adapter, section: AnyModelSection, base: Base) -> None:
    """Raise ConfigError if `base` is not the one that the adapter records.

    An older adapter records the digest of the weights only.
    """
    recorded = adapter.base
    uri = recorded["uri"]
    found = f"model.base, {section.base}," if section.base else f"the base there now, {uri},"
    if recorded.get("digest") != base.digest:
        raise ConfigError(
            f"{adapter.uri} is an adapter for {uri} (digest {str(recorded.get('digest'))[:12]}), "
            f"but {found} has digest {base.digest[:12]}: give the base that it was trained on, or "
            "train again"
        )
    _check_same_small_files(adapter, found, base)


def _check_same_small_files(adapter: Adapter, found: str, base: Base) -> None:
    """Raise ConfigError if tokenizer, chat template or generation config have changed.

    `found` names the base in the message.
    """
    recorded = adapter.base
    changed = []
    # A copy of the weights without a tokenizer will do: the adapter has one.
    if base.tokenizer_digest not in (None, recorded.get("tokenizer_digest", base.tokenizer_digest)):
        changed = changed_names(recorded.get("tokenizer_files") or {}, base.tokenizer_files)
    if recorded.get("generation_digest", base.generation_digest) != base.generation_digest:
        changed.append(GENERATION_CONFIG)
    if changed:
        raise ConfigError(
            f"{adapter.uri} is an adapter for {recorded['uri']}, but {found} has another "
            f"{', '.join(changed)} than it was trained with: put back those files, give the base "
            "that it was trained on, or train again"
        )
