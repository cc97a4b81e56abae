"""The tokens of a training's conversations, which an adapter carries as seen_tokens.json.

A bit for each id of the vocabulary: no text, no order and no counts. The bits are not compressed,
since a library for that may give the same bits other bytes, and an adapter's digest is that of its
files.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.errors import DamagedError

FILE = "seen_tokens.json"
MAX_BYTES = 8_000_000  # of the file: a vocabulary of millions


@dataclass(frozen=True)
class SeenTokens:
    """The set of ids that the conversations of a training had: a flag for each id."""

    flags: NDArray[np.bool_]

    @classmethod
    def of(cls, arrays: Iterable[NDArray[Any]]) -> "SeenTokens":
        """Return the set of all ids in these arrays, which are looked at one by one."""
        flags = np.zeros(0, dtype=np.bool_)
        for ids in arrays:
            if ids.size and int(ids.max()) >= len(flags):
                flags = np.pad(flags, (0, int(ids.max()) + 1 - len(flags)))
            flags[ids] = True
        return cls(flags)

    def with_those_of(self, other: "SeenTokens | None") -> "SeenTokens":
        """Return the union of both."""
        if other is None:
            return self
        flags = np.zeros(max(len(self.flags), len(other.flags)), dtype=np.bool_)
        flags[: len(self.flags)] |= self.flags
        flags[: len(other.flags)] |= other.flags
        return SeenTokens(flags)

    def unseen_share(self, prompts: Sequence[Sequence[int]], around: int) -> float | None:
        """Return the share of tokens that are not in the set; None without any tokens.

        `around` is the number of tokens of a prompt without a conversation. They are in the set,
        and do not count.
        """
        tokens = 0
        unseen = 0
        for prompt in prompts:
            ids = np.asarray(prompt, dtype=np.int64)
            tokens += len(ids) - around
            known = ids[ids < len(self.flags)]
            unseen += len(ids) - int(self.flags[known].sum())
        return min(unseen / tokens, 1.0) if tokens > 0 else None


def write_seen_tokens(folder: Path, seen: SeenTokens) -> None:
    """Write seen_tokens.json in an adapter's folder."""
    bits = np.packbits(seen.flags, bitorder="little").tobytes()
    content = {"tokens": int(seen.flags.sum()), "ids": base64.b64encode(bits).decode()}
    (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_seen_tokens(folder: Path) -> SeenTokens | None:
    """Return the tokens that an adapter's folder records, None if it has no record.

    Raise DamagedError for a record that cannot be read.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    if file.stat().st_size > MAX_BYTES:
        raise DamagedError(f"{folder}: {FILE} has more than {MAX_BYTES:,} bytes")
    return parse_seen_tokens(file.read_bytes(), str(folder))


def parse_seen_tokens(content: bytes, where: str) -> SeenTokens:
    """Return the tokens of a record; raise DamagedError, which names `where`, if it is none."""
    try:
        record = json.loads(content)
        bits = np.frombuffer(base64.b64decode(record["ids"], validate=True), dtype=np.uint8)
        flags = np.unpackbits(bits, bitorder="little").astype(np.bool_)
        if int(flags.sum()) != record["tokens"]:
            raise ValueError(f"{flags.sum()} ids, but it says {record['tokens']}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(
            f"{where}: {FILE} is unreadable ({error}): publish the adapter again, or remove the "
            "file and its line in the manifest"
        ) from error
    return SeenTokens(flags)
