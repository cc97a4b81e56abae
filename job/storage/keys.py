"""Keys and URIs: which keys may become paths, and how a URI is split. Touches no store."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from job.errors import ConfigError, DataError

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
SCHEMES = ("s3", "hf", "file")
CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\u2028\u2029]")  # and the two line separators


@dataclass(frozen=True)
class HubFolder:
    """A folder of a Hub repository; the empty folder is the root."""

    kind: str  # dataset or model
    repository: str  # org/name
    revision: str | None
    folder: str


def check_key(key: str, where: str = "") -> str:
    """Return the key itself if it may become a path below any root, else raise DataError.

    `where` names the store or folder of the key in the message.
    """
    wrong = mistake_in(key)
    if wrong:
        source = f"{where}: " if where else ""
        raise DataError(
            f"{source}key {key!r} {wrong}; recap makes paths of keys, so rename the object "
            "or move it out of the prefix"
        )
    return key


def mistake_in(key: str) -> str | None:
    """Return why a key must not become a path, or None."""
    parts = key.split("/")
    if key.startswith("/"):
        return "is absolute"
    if "" in parts:
        return "has an empty part"
    if ".." in parts or "." in parts:
        return "has a part that is '.' or '..'"
    if CONTROL.search(key):
        return "has a control character"
    if "\\" in key:
        return "has a backslash"
    if any("\ud800" <= character <= "\udfff" for character in key):
        return "is not valid UTF-8"
    return None


def is_unfit(key: str) -> bool:
    """Return True if the key must not become a path."""
    return mistake_in(key) is not None


def scheme_of(uri: str) -> str:
    """Return `s3`, `hf`, or `file` for a path on this machine.

    Raise ConfigError for any other scheme.
    """
    found = SCHEME.match(uri)
    if found:
        scheme = found[1]
    elif uri.startswith(tuple(f"{scheme}:" for scheme in SCHEMES)):
        scheme = uri.partition(":")[0]  # a mistake, such as s3:bucket
    else:
        return "file"

    if scheme not in SCHEMES or not uri.startswith(f"{scheme}://"):
        raise ConfigError(
            f"'{uri}': unknown kind of location; wanted a path, s3://bucket/prefix, "
            "hf://org/name or hf://datasets/org/name"
        )
    return scheme


def local_path(uri: str) -> str:
    """Return the path that a file URI or a bare path names; an empty one is the current folder."""
    return uri.removeprefix("file://") or "."


def split_s3(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/some/prefix/` into `bucket` and `some/prefix`."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/")
    wrong = mistake_in(prefix) if prefix else None
    if not bucket:
        wrong = "names no bucket"
    if wrong:
        raise ConfigError(f"'{uri}' {wrong}; wanted s3://bucket/prefix")
    return bucket, prefix


def split_hub(uri: str) -> HubFolder:
    """Split `hf://datasets/org/name@revision/folder`.

    A slash in a revision is written %2F (`@refs%2Fpr%2F1`).
    """
    rest = uri.removeprefix("hf://").rstrip("/")
    kind = "dataset" if rest.startswith("datasets/") else "model"
    organization, _, rest = rest.removeprefix("datasets/").partition("/")
    name, _, folder = rest.partition("/")
    name, _, revision = name.partition("@")
    wrong = mistake_in(folder) if folder else None
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", f"{organization}/{name}") or wrong:
        raise ConfigError(
            f"'{uri}' {wrong or 'names no repository'}; wanted hf://org/name or "
            "hf://datasets/org/name"
        )
    branch = revision.replace("%2F", "/") or None
    return HubFolder(kind, f"{organization}/{name}", branch, folder)


def below(prefix: str, key: str) -> str:
    """Return the key of `key` in the folder `prefix`. The empty prefix is the root."""
    return f"{prefix}/{key}" if prefix else key


def relative_to(prefix: str, key: str) -> str:
    """Return the key relative to the folder `prefix`: the opposite of `below`."""
    return key.removeprefix(f"{prefix}/") if prefix else key


def is_below(uri: str, folders: Iterable[str]) -> bool:
    """Return True if `uri` is one of these folders or below one: all as stores have them."""
    return any(f"{uri}/".startswith(f"{folder}/") for folder in folders)


def split_file(uri: str) -> tuple[str, str]:
    """Split the URI of a file into the URI of its folder and its name.

    Raise ConfigError if the URI names no file.
    """
    match scheme_of(uri):
        case "s3":
            key = split_s3(uri)[1]
        case "hf":
            key = split_hub(uri).folder
        case _:
            uri = local_path(uri)
            key = uri
    folder, slash, name = uri.rpartition("/")
    if not key or name in ("", ".", ".."):
        raise ConfigError(f"'{uri}' names a folder; wanted a file")
    return folder or ("/" if slash else "."), name
