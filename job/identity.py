"""The identity of runs: digests of what they are made of, and the differences between two.

Digests are on disk, in manifests, checkpoints and names of folders. A change of one byte here would
make every run that has begun another run: `tests/test_identity.py` holds digests of an earlier
version.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def sha256_of(content: bytes | str) -> str:
    """Return the SHA-256 of bytes, or of a text in UTF-8, as 64 hexadecimal digits."""
    if isinstance(content, str):
        content = content.encode()
    return hashlib.sha256(content).hexdigest()


def blake2b_16(text: str) -> bytes:
    """Return the 16 bytes of a text's BLAKE2b, for ids and for the words of conversations."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def json_digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value as 64 hexadecimal digits; the order of keys is ignored."""
    return sha256_of(json.dumps(value, sort_keys=True))


def differences(
    there: Mapping[str, Any],
    here: Mapping[str, Any],
    separator: str = ".",
    prefix: str = "",
) -> list[str]:
    """Return a line `name: value there, value here` for each value that is not the same.

    The name of a nested value is the names of its keys, joined with `separator`, after `prefix`.
    """
    found: list[str] = []
    new_keys = [key for key in here if key not in there]
    for key in [*there, *new_keys]:
        old = there.get(key)
        new = here.get(key)
        name = f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, separator, f"{name}{separator}")
        elif old != new:
            found.append(f"{name}: {_shown(old)} there, {_shown(new)} here")
    return found


def changed_names(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return the names, sorted, of the files whose digest is not the same there and here."""
    return sorted(name for name in {*there, *here} if there.get(name) != here.get(name))


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
