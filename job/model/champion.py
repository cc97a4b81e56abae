"""The champion: a small JSON file that names the adapter which serves, and those before it.

Nights follow the file, the pointer, and it is switched by one guarded write: of two that switch it
at once, one wins and the other gets an error. Whoever may write a pointer decides what serves, but
what stands in it is only data here: it is bounded, and checked before anything acts on it.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from job.config.sections import StorageSection
from job.errors import ChangedError, ConfigError, DataError, MissingError, OutputError
from job.printable import visible
from job.storage.keys import local_path, scheme_of, split_file
from job.storage.open import open_store
from job.storage.store import read_or_none

POINTER_ENDING = ".json"  # of a URI: that of an adapter's folder never ends so
MAX_HISTORY = 100  # champions that a pointer remembers, besides the one that serves
MAX_POINTER_BYTES = 4 << 20
MAX_EVALUATION_BYTES = 16 << 10  # of one champion, as JSON
MAX_TEXT_CHARACTERS = 2000
# Keys in the evaluation of a champion: the verdict of its gate, its wins on held-out pairs, and
# what is known of loading it by anything but recap.
GATE = "gate"
PAIRS = "pairs"
RELOAD = "reload"
NOT_VERIFIED: Final = "not verified"  # the state of a reload that could not be tried
DIGEST = re.compile(r"[0-9a-f]{64}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True)
class Promotion:
    """A switch of the champion: to which adapter, when, by whom, and what was known of it.

    `evaluation` has its numbers and the verdict of its gate: of a promotion by hand, it need not
    have passed. `version` counts the switches of a pointer, from 1. `restores` is the version of
    the champion that a rollback brought back.
    """

    adapter: str
    digest: str
    at: str
    by: str
    reason: str = ""
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0
    restores: int | None = None

    @property
    def rank(self) -> int:
        """The version at which this adapter was promoted, rather than restored."""
        return self.restores or self.version

    @property
    def has_failed_its_gate(self) -> bool:
        """True if a person made it the champion although it had not passed its gate."""
        gate = self.evaluation.get(GATE)
        return isinstance(gate, dict) and gate.get("passed") is not True

    @property
    def is_not_reloaded(self) -> bool:
        """True if a reload by plain peft and transformers was asked for and could not be tried."""
        reload = self.evaluation.get(RELOAD)
        return isinstance(reload, dict) and reload.get("state") == NOT_VERIFIED

    def doubts(self) -> list[str]:
        """Return what speaks against this champion, as clauses that go on after `although`."""
        found = []
        if self.has_failed_its_gate:
            found.append("it did not pass its gate, and was set by hand")
        if self.is_not_reloaded:
            found.append("nobody could reload it by plain peft and transformers")
        return found


@dataclass(frozen=True)
class Pointer:
    """The content of a pointer: the champion, and those before it, the latest first."""

    uri: str
    champion: Promotion
    history: tuple[Promotion, ...] = ()

    def before(self) -> Promotion | None:
        """Return the champion that a rollback brings back, None if the history has none.

        A second rollback goes further back, never to the champion that the first one removed.
        """
        return next(iter(self.lineage()[1:]), None)

    def lineage(self) -> list[Promotion]:
        """Return the champion, whom it replaced, and so on; nobody who was rolled back."""
        found = [self.champion]
        for earlier in self.history:
            if earlier.version < found[-1].rank:
                found.append(earlier)
        return found


def is_pointer(uri: str) -> bool:
    """Return True if the URI of an adapter names a pointer."""
    return uri.endswith(POINTER_ENDING)


def now() -> str:
    """Return the time as a promotion has it: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_pointer(uri: str, storage: StorageSection) -> Pointer:
    """Read a pointer. Raise MissingError if there is none, DataError if its content is none."""
    pointer = find_pointer(uri, storage)
    if pointer is None:
        raise MissingError(
            f"{uri}: there is no champion yet: `recap champion set {uri} ADAPTER` makes one, and "
            "so does an adapter that passes the gate of a training or of `recap evaluate` "
            "(publish.champion)"
        )
    return pointer


def find_pointer(uri: str, storage: StorageSection) -> Pointer | None:
    """Return the pointer, or None if there is none yet. Raise as `read_pointer` does."""
    return _pointer_of(_read(uri, storage), uri)


def switch(
    uri: str, storage: StorageSection, promotion: Promotion, expected: Pointer | None
) -> Pointer:
    """Make `promotion` the champion if the pointer is still `expected`, and return the new pointer.

    None expects that there is no pointer yet. Raise OutputError, and change nothing, if somebody
    else has switched it meanwhile: the adapter was not judged against that champion.
    """
    content = _read(uri, storage)
    current = _pointer_of(content, uri)
    if current != expected:
        raise _was_faster(uri, current)
    wanted = _to_json(_next(uri, current, promotion))
    try:
        made = _parse(wanted, uri)
    except ValueError as error:  # nobody could read it
        raise ConfigError(f"{uri}: this cannot be the champion: {error}") from error

    folder, name = split_file(uri)
    store = open_store(folder, storage)
    try:
        store.replace(name, wanted, content)
    except ChangedError as error:
        found = find_pointer(uri, storage)
        if found is None or made.champion not in found.history:
            raise _was_faster(uri, found) from error
        # This switch was done, its answer was lost, and somebody has switched again since.
    return made


def roll_back(pointer: Pointer, storage: StorageSection, by: str, reason: str = "") -> Pointer:
    """Bring back the champion before this one, by one write, and return the new pointer.

    Raise ConfigError if the history has none, and what `switch` raises.
    """
    before = pointer.before()
    if before is None:
        raise ConfigError(
            f"{pointer.uri}: there is no champion before {pointer.champion.adapter}: name the "
            f"adapter that shall serve: recap champion set {pointer.uri} ADAPTER"
        )
    restored = replace(before, at=now(), by=by, reason=reason, restores=before.rank)
    return switch(pointer.uri, storage, restored, pointer)


def check_nameable(uri: str, adapter: str) -> None:
    """Raise ConfigError unless the pointer at `uri` may name this adapter."""
    if not is_pointer(uri):
        raise ConfigError(f"{uri}: the name of a pointer ends in {POINTER_ENDING}")
    wrong = _mistake_in_adapter(adapter, uri)
    if wrong:
        raise ConfigError(f"{uri}: the champion cannot be {adapter!r}: {wrong}")


def _next(uri: str, current: Pointer | None, promotion: Promotion) -> Pointer:
    if current is None:
        return Pointer(uri, replace(promotion, version=1))
    promotion = replace(promotion, version=current.champion.version + 1)
    return Pointer(uri, promotion, (current.champion, *current.history)[:MAX_HISTORY])


def _read(uri: str, storage: StorageSection) -> bytes | None:
    folder, name = split_file(uri)
    store = open_store(folder, storage)
    try:
        size = store.stat(name).size
    except MissingError:
        return None
    if size > MAX_POINTER_BYTES:
        raise DataError(
            f"{uri} is no pointer to a champion: it has {size:,} bytes, and a pointer at most "
            f"{MAX_POINTER_BYTES:,}"
        )
    return read_or_none(store, name)


def _pointer_of(content: bytes | None, uri: str) -> Pointer | None:
    if content is None:
        return None
    try:
        return _parse(content, uri)
    except ValueError as error:
        raise DataError(
            f"{uri} is no pointer to a champion: {error}. Bring back an earlier version of the "
            "file, or remove it and name the adapter that shall serve: recap champion set POINTER "
            "ADAPTER"
        ) from error


def _was_faster(uri: str, current: Pointer | None) -> OutputError:
    if current is None:
        return OutputError(f"{uri}: somebody removed the champion meanwhile: run again")
    champion = current.champion
    return OutputError(
        f"{uri}: somebody else switched it meanwhile: since {champion.at} {champion.adapter} is "
        f"the champion, by {champion.by}. Nothing was changed: judge the adapter against that "
        "champion, and then promote it"
    )


def _to_json(pointer: Pointer) -> bytes:
    content = _plain(pointer.champion)
    content["history"] = [_plain(earlier) for earlier in pointer.history]
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _plain(promotion: Promotion) -> dict[str, Any]:
    content: dict[str, Any] = {
        "adapter": promotion.adapter,
        "digest": promotion.digest,
        "version": promotion.version,
        "at": promotion.at,
        "by": promotion.by,
        "reason": promotion.reason,
        "evaluation": dict(promotion.evaluation),
    }
    if promotion.restores is not None:
        content["restores"] = promotion.restores
    return content


def _parse(content: bytes, uri: str) -> Pointer:
    """Return the checked pointer. Raise ValueError, which says why, for anything else."""
    try:
        raw = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(raw, dict):
        raise ValueError("it is no JSON object")
    history = raw.get("history")
    if not isinstance(history, list) or len(history) > MAX_HISTORY:
        raise ValueError(f"history is no list of at most {MAX_HISTORY}")
    champion = _promotion(raw, uri)
    earlier = tuple(_promotion(each, uri) for each in history)
    versions = [each.version for each in (champion, *earlier)]
    if versions != sorted(set(versions), reverse=True):
        raise ValueError("the versions in its history do not descend")
    return Pointer(uri, champion, earlier)


def _promotion(raw: Any, uri: str) -> Promotion:
    """Return a checked promotion; keys that a later recap may add are ignored."""
    if not isinstance(raw, dict):
        raise ValueError("its history has something that is no JSON object")
    for key in ("adapter", "at", "by", "reason"):
        if not _is_plain_text(raw.get(key)):
            raise ValueError(f"{key} is no short text without control characters")
    if not DIGEST.fullmatch(str(raw.get("digest"))):
        raise ValueError("digest is not of 64 hexadecimal digits")
    if not TIME.fullmatch(raw["at"]):
        raise ValueError("at is no time such as 2026-01-31T02:00:00Z")
    wrong = _mistake_in_adapter(raw["adapter"], uri)
    if wrong:
        raise ValueError(f"adapter is {raw['adapter']!r}: {wrong}")
    version, restores = raw.get("version"), raw.get("restores")
    if not _is_version(version) or not (restores is None or _is_version(restores)):
        raise ValueError("version or restores is no whole number from 1 on")
    evaluation = raw.get("evaluation")
    if not isinstance(evaluation, dict) or not _is_plain(evaluation):
        raise ValueError("evaluation is no JSON object of numbers and short texts")
    if len(json.dumps(evaluation)) > MAX_EVALUATION_BYTES:
        raise ValueError(f"an evaluation has more than {MAX_EVALUATION_BYTES:,} bytes")
    known = {key: raw[key] for key in ("adapter", "digest", "at", "by", "reason", "version")}
    return Promotion(**known, evaluation=evaluation, restores=restores)


def _mistake_in_adapter(adapter: str, pointer: str) -> str | None:
    """Return why the pointer must not name this adapter, or None."""
    if is_pointer(adapter):
        return "a pointer names an adapter, and no other pointer"
    try:
        scheme = scheme_of(adapter)
        is_here = scheme_of(pointer) == "file"
    except ConfigError as error:
        return str(error)
    if scheme != "file":
        return None
    if not Path(local_path(adapter)).is_absolute():
        return (
            "it is relative, and means another folder to everybody who reads it; give an absolute "
            "path, s3://bucket/prefix or hf://org/name"
        )
    if not is_here:
        return "it is a folder of one machine, and the pointer is for all of them"
    return None


def _is_plain_text(value: Any) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= MAX_TEXT_CHARACTERS
        and visible(value, one_line=True) == value
    )


def _is_version(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_plain(value: Any) -> bool:
    """Return True for a JSON value of finite numbers, short texts and what is made of them."""
    if isinstance(value, dict):
        return all(_is_plain_text(key) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, int) or _is_plain_text(value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
