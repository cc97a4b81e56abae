"""What lies in a base's folder: whether it is whole, told by its names, sizes and first bytes.

A folder here or an s3:// prefix → nothing, or the error that names the file and the remedy. Small reads only, so that a
plan can ask before weights are fetched. Knows nothing of torch or of how a base is loaded.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO

from job.errors import ConfigError, DataError, MissingError
from job.storage.atomic import reading
from job.storage.folders import sha256_file
from job.storage.store import Store

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
CONFIG, INDEX, TOKENIZER_CONFIG = (
    "config.json",
    "model.safetensors.index.json",
    "tokenizer_config.json",
)
TOKENIZERS = ("tokenizer.json", "tekken.json", "vocab.*", "*.model", "*.tiktoken")
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")
LARGEST_HEADER_BYTES = 100_000_000  # safetensors' own limit
AGAIN = "copy or fetch it again"


@dataclass(frozen=True)
class BaseFiles:
    """The files of a base: its name in the config, size in bytes by key, and how one is opened."""

    uri: str
    sizes: Mapping[str, int]
    open: Callable[[str], BinaryIO]

    @property
    def weights(self) -> list[str]:
        """The safetensors of the folder itself: what lies deeper is not loaded."""
        return sorted(key for key in self.sizes if key.endswith(".safetensors") and "/" not in key)


def hub_id_of(uri: str, revision: str | None) -> str | None:
    """The Hub id that the name of a base means; None for an s3:// prefix and for a folder here.

    Raises MissingError where it is none of the three, ConfigError for a revision that would be ignored.
    """
    elsewhere = (
        "an s3:// prefix"
        if uri.startswith("s3://")
        else "a folder here"
        if Path(uri).is_dir()
        else None
    )
    if elsewhere and revision:
        raise ConfigError(
            f"model.revision: {uri} is {elsewhere}, and only a Hub id has revisions; remove it "
            "(code from a model's repository runs from a pinned commit of the Hub only)"
        )
    if elsewhere:
        return None
    hub_id = uri.removeprefix("hf://")
    if not HUB_ID.fullmatch(hub_id):
        raise MissingError(
            f"model.base: '{uri}' is no folder here, and neither a Hub id (org/name) nor an s3:// prefix"
        )
    return hub_id


def files_in_folder(path: Path, uri: str) -> BaseFiles:
    """The files of a folder here; links are followed, since a Hub cache consists of them."""
    with reading(path):
        sizes = {
            file.name: file.stat().st_size for file in sorted(path.iterdir()) if file.is_file()
        }
    return BaseFiles(uri, sizes, lambda key: _opened(path / key))


def files_in_store(store: Store, uri: str) -> BaseFiles:
    """The files below a store's root."""
    return BaseFiles(uri, {entry.key: entry.size for entry in store.list()}, store.open)


def check_names(files: BaseFiles) -> None:
    """MissingError without config or weights."""
    if CONFIG not in files.sizes or not files.weights:
        found = ", ".join(list(files.sizes)[:8]) or "nothing"
        raise MissingError(
            f"model.base: {files.uri} needs config.json and *.safetensors, found {found}; "
            "convert other weights with save_pretrained(..., safe_serialization=True)"
        )


def check_weights(files: BaseFiles) -> None:
    """MissingError for a file that is not there, DataError for a config or weights that are broken or cut short."""
    check_names(files)
    read_json(files, CONFIG)
    shards = read_json(files, INDEX).get("weight_map", {}).values() if INDEX in files.sizes else ()
    missing = sorted(set(shards) - set(files.sizes))
    if missing:
        raise MissingError(
            f"model.base: {files.uri} lacks {', '.join(missing[:5])}, which {INDEX} names; {AGAIN}"
        )
    for key in files.weights:
        _check_header(files, key)


def weights_digest(path: Path, uri: str) -> str:
    """Digest over names and contents of config and weights, which must be whole (`check_weights`)."""
    files = files_in_folder(path, uri)
    check_weights(files)
    return digest_of({name: sha256_file(path / name) for name in ["config.json", *files.weights]})


def digest_of(digests: Mapping[str, str]) -> str:
    """One digest over names and digests, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()


def check_tokenizer(files: BaseFiles) -> None:
    """MissingError where there is nothing that a tokenizer could be made of."""
    if not any(fnmatchcase(key, pattern) for key in files.sizes for pattern in TOKENIZERS):
        raise MissingError(
            f"model.base: {files.uri} has no tokenizer (tokenizer.json or tokenizer.model); "
            "put the tokenizer's files there with tokenizer.save_pretrained(...)"
        )


def check_chat_template(files: BaseFiles) -> None:
    """ConfigError where no file holds a chat template."""
    if any(key in files.sizes for key in CHAT_TEMPLATES):
        return
    if TOKENIZER_CONFIG not in files.sizes or not read_json(files, TOKENIZER_CONFIG).get(
        "chat_template"
    ):
        raise ConfigError(
            f"prompt.style is chat, but the tokenizer of model.base {files.uri} has no chat template: "
            "use an instruct model, or prompt.style: instruction"
        )


def read_json(files: BaseFiles, key: str) -> dict[str, Any]:
    """The JSON object of a small file; DataError if it is none."""
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
    """A safetensors file is 8 bytes of length, a header in JSON that says where each tensor lies, and the tensors."""
    size = files.sizes[key]
    with files.open(key) as file:
        length = int.from_bytes(file.read(8), "little")
        header = (
            file.read(length) if size >= 8 and length <= min(size, LARGEST_HEADER_BYTES) else b""
        )
    try:
        ends = [
            tensor["data_offsets"][1]
            for name, tensor in json.loads(header).items()
            if name != "__metadata__"
        ]
        wanted = 8 + length + max(ends, default=0)
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise DataError(
            f"model.base: {files.uri}/{key} is no safetensors file, or cut short within its header ({size:,} bytes); "
            f"{AGAIN}"
        ) from error
    if size != wanted:
        raise DataError(
            f"model.base: {files.uri}/{key} has {size:,} bytes, its header says {wanted:,}; {AGAIN}"
        )


def _opened(path: Path) -> BinaryIO:
    with reading(path):
        return path.open("rb")
