"""Read the license of a base from its own model card."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from job.config.sections import StorageSection
from job.errors import RecapError
from job.model.fetch import open_remote_base
from job.storage.local import LocalStore

CARD = "README.md"
MAX_CARD_BYTES = 1 << 20
FRONT_MATTER = re.compile(rb"\A\s*---\r?\n(.*?)\r?\n---", re.DOTALL)
IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
# A name of one's own, and a file in the repository or an address.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,99}")
LINK = re.compile(r"(?:https://[^\s<>\"'`]{1,300}|[A-Za-z0-9][A-Za-z0-9._-]{0,99})")


@dataclass(frozen=True)
class License:
    """A license as the Hub has it: its identifier, and of `other` a name and a link."""

    id: str
    name: str | None = None
    link: str | None = None

    def front_matter(self) -> dict[str, str]:
        """Return the keys of a model card's front matter."""
        keys = {"license": self.id, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in keys.items() if value is not None}


def base_license(uri: str, revision: str | None, storage: StorageSection) -> License | None:
    """Return the license that the base's card names.

    None if there is no card, if it names none, or if it cannot be read.
    """
    try:
        store = open_remote_base(uri, revision, storage) or LocalStore(uri)
        if store.stat(CARD).size > MAX_CARD_BYTES:
            return None
        return license_in(store.read(CARD))
    except RecapError:
        return None


def license_in(card: bytes) -> License | None:
    """Return the license in a card's front matter, without anything that the Hub has not."""
    found = FRONT_MATTER.match(card)
    if found is None:
        return None
    try:
        front = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(front, Mapping):
        return None
    identifier = _matching(IDENTIFIER, front.get("license"))
    if identifier is None:
        return None
    return License(
        identifier,
        _matching(NAME, front.get("license_name")),
        _matching(LINK, front.get("license_link")),
    )


def _matching(pattern: re.Pattern[str], value: Any) -> str | None:
    if isinstance(value, list) and len(value) == 1:  # the Hub allows a list, too
        value = value[0]
    return value if isinstance(value, str) and pattern.fullmatch(value) else None
