"""Keys and URIs: what may become a path, and which place a URI names. Text in, text out; touches no place."""

import re

from job.errors import ConfigError, DataError

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
SCHEMES = ("s3", "hf", "file")
CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\u2028\u2029]")  # line separators among them


def check_key(key: str, where: str = "") -> str:
    """The key itself if it is safe to be made a path below any root; DataError, naming it and `where`, if not."""
    wrong = mistake_in(key)
    if wrong:
        raise DataError(
            f"{where}{': ' if where else ''}key {key!r} {wrong}; recap makes paths of keys, so rename the object "
            "or move it out of the prefix"
        )
    return key


def mistake_in(key: str) -> str | None:
    """What makes a key unfit, or None."""
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
    """`s3`, `hf`, or `file` for a path on this machine; ConfigError for any other scheme."""
    found = SCHEME.match(uri)
    scheme = (
        found[1]
        if found
        else uri.partition(":")[0]
        if uri.startswith(tuple(f"{s}:" for s in SCHEMES))
        else None
    )
    if scheme is None:
        return "file"
    if scheme not in SCHEMES or not uri.startswith(f"{scheme}://"):
        raise ConfigError(
            f"'{uri}': no such kind of place; wanted a path, s3://bucket/prefix, hf://org/name or hf://datasets/org/name"
        )
    return scheme


def local_path(uri: str) -> str:
    """The path that a file URI or a bare path names; empty is the current folder."""
    return uri.removeprefix("file://") or "."


def split_s3(uri: str) -> tuple[str, str]:
    """`s3://bucket/some/prefix/` → bucket, `some/prefix`."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/")
    wrong = mistake_in(prefix) if prefix else None
    if not bucket or wrong:
        raise ConfigError(
            f"'{uri}' {'names no bucket' if not bucket else wrong}; wanted s3://bucket/prefix"
        )
    return bucket, prefix


def split_hub(uri: str) -> tuple[str, str, str | None, str]:
    """`hf://datasets/org/name@revision/folder` → `dataset`, `org/name`, revision, `folder`.

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
            f"'{uri}' {wrong or 'names no repository'}; wanted hf://org/name or hf://datasets/org/name"
        )
    return kind, f"{organization}/{name}", revision.replace("%2F", "/") or None, folder


def below(prefix: str, key: str) -> str:
    """The key of `key` in the folder `prefix`; the empty prefix is the root."""
    return f"{prefix}/{key}" if prefix else key


def relative_to(prefix: str, key: str) -> str:
    """The opposite of `below`."""
    return key.removeprefix(f"{prefix}/") if prefix else key


def split_file(uri: str) -> tuple[str, str]:
    """A file's URI → its folder's URI and its name there; ConfigError if the URI names no file."""
    match scheme_of(uri):
        case "s3":
            key = split_s3(uri)[1]
        case "hf":
            key = split_hub(uri)[3]
        case _:
            key = uri = local_path(uri)
    folder, slash, name = uri.rpartition("/")
    if not key or name in ("", ".", ".."):
        raise ConfigError(f"'{uri}' names a folder; wanted a file")
    return folder or ("/" if slash else "."), name
