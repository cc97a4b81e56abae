"""Check that the folder of a base is whole, by the names, sizes and first bytes of its files.

Reads little, and needs no torch: a plan checks a base in S3 before its weights are fetched.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO

from job.errors import ConfigError, DataError, MissingError
from job.identity import json_digest
from job.storage.atomic import reading
from job.storage.folders import sha256_file
from job.storage.store import Store

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZERS = ("tokenizer.json", "tekken.json", "vocab.*", "*.model", "*.tiktoken")
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")

MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit

AGAIN = "copy or fetch it again"


@dataclass(frozen=True)
class BaseFiles:
    """The files of a base: its name in the config, size in bytes by key, and how to open one."""

    uri: str
    sizes: Mapping[str, int]
    open: Callable[[str], BinaryIO]

    @property
    def weights(self) -> list[str]:
        """The safetensors files of the folder itself; those of folders below are not loaded."""
        return sorted(key for key in self.sizes if key.endswith(".safetensors") and "/" not in key)


def hub_id_of(uri: str, revision: str | None) -> str | None:
    """Return the Hub id that names a base; None for an s3:// prefix or a folder here.

    Raise MissingError if `uri` is none of the three, ConfigError for a revision that would be
    ignored.
    """
    kind = None
    if uri.startswith("s3://"):
        kind = "an s3:// prefix"
    elif Path(uri).is_dir():
        kind = "a folder here"

    if kind and revision:
        raise ConfigError(
            f"model.revision: {uri} is {kind}, and only a Hub id has revisions; remove it "
            "(code from a model's repository runs from a pinned commit of the Hub only)"
        )
    if kind:
        return None

    hub_id = uri.removeprefix("hf://")
    if not HUB_ID.fullmatch(hub_id):
        raise MissingError(
            f"model.base: '{uri}' is no folder here, and neither a Hub id (org/name) nor an s3:// "
            "prefix"
        )
    return hub_id


def files_in_folder(path: Path, uri: str) -> BaseFiles:
    """Return the files of a folder here."""
    sizes = {}
    with reading(path):
        for file in sorted(path.iterdir()):
            # Follows links: a snapshot in the Hub's cache consists of them.
            if file.is_file():
                sizes[file.name] = file.stat().st_size
    return BaseFiles(uri, sizes, lambda key: _open(path / key))


def files_in_store(store: Store, uri: str) -> BaseFiles:
    """Return the files below a store's root."""
    return BaseFiles(uri, {entry.key: entry.size for entry in store.list()}, store.open)


def check_names(files: BaseFiles) -> None:
    """Raise MissingError without config or weights."""
    if CONFIG not in files.sizes or not files.weights:
        found = ", ".join(list(files.sizes)[:8]) or "nothing"
        raise MissingError(
            f"model.base: {files.uri} needs config.json and *.safetensors, found {found}; "
            "convert other weights with save_pretrained(..., safe_serialization=True)"
        )


def check_weights(files: BaseFiles) -> None:
    """Raise MissingError for a missing file, DataError for a broken config or broken weights.

    Finds weights that are cut short without reading them: a header has the file's length.
    """
    check_names(files)
    read_json(files, CONFIG)
    if INDEX in files.sizes:
        shards = set(read_json(files, INDEX).get("weight_map", {}).values())
        missing = sorted(shards - set(files.sizes))
        if missing:
            raise MissingError(
                f"model.base: {files.uri} lacks {', '.join(missing[:5])}, which {INDEX} names; "
                f"{AGAIN}"
            )
    for key in files.weights:
        _check_header(files, key)


def weights_digest(path: Path, uri: str) -> str:
    """Check a base's folder, and return the digest over its config and weights.

    Reads every weight. Raise what `check_weights` raises.
    """
    files = files_in_folder(path, uri)
    check_weights(files)
    return json_digest({name: sha256_file(path / name) for name in [CONFIG, *files.weights]})


def check_tokenizer(files: BaseFiles) -> None:
    """Raise MissingError if no file could be a tokenizer's vocabulary."""
    if not any(fnmatchcase(key, pattern) for key in files.sizes for pattern in TOKENIZERS):
        raise MissingError(
            f"model.base: {files.uri} has no tokenizer (tokenizer.json or tokenizer.model); "
            "put the tokenizer's files there with tokenizer.save_pretrained(...)"
        )


def check_chat_template(files: BaseFiles) -> None:
    """Raise ConfigError if no file has a chat template."""
    if any(key in files.sizes for key in CHAT_TEMPLATES):
        return
    # Older tokenizers have it in their config.
    if TOKENIZER_CONFIG in files.sizes and read_json(files, TOKENIZER_CONFIG).get("chat_template"):
        return
    raise ConfigError(
        f"prompt.style is chat, but the tokenizer of model.base {files.uri} has no chat template: "
        "use an instruct model, or prompt.style: instruction"
    )


def read_json(files: BaseFiles, key: str) -> dict[str, Any]:
    """Return the JSON object in a small file; raise DataError if it holds anything else."""
    with files.open(key) as file:
        data = file.read()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"model.base: {files.uri}/{key} is no JSON ({error}); {AGAIN}") from error
    if not isinstance(value, dict):
        raise DataError(f"model.base: {files.uri}/{key} is no JSON object; {AGAIN}")
    return value


def _check_header(files: BaseFiles, key: str) -> None:
    """Raise DataError unless a safetensors file is as long as its header says.

    The file consists of 8 bytes with the header's length, the header, which is JSON with the
    offsets of each tensor, and the tensors.
    """
    size = files.sizes[key]
    header = b""
    with files.open(key) as file:
        length = int.from_bytes(file.read(8), "little")
        if size >= 8 and length <= min(size, MAX_HEADER_BYTES):
            header = file.read(length)
    try:
        wanted = 8 + length + _end_of_tensors(json.loads(header))
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise DataError(
            f"model.base: {files.uri}/{key} is no safetensors file, or cut short within its header "
            f"({size:,} bytes); {AGAIN}"
        ) from error
    if size != wanted:
        raise DataError(
            f"model.base: {files.uri}/{key} has {size:,} bytes, its header says {wanted:,}; {AGAIN}"
        )


def _end_of_tensors(header: Any) -> int:
    """Return where the last tensor ends, in bytes after the header."""
    end = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            end = max(end, tensor["data_offsets"][1])
    return end


def _open(path: Path) -> BinaryIO:
    with reading(path):
        return path.open("rb")
