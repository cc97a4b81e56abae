"""The place of the summaries: what is there already, and how new ones come to be there, whole or not at all.

A folder gets `parts/`, `rejects/`, `manifest.json` and, last of all, `_SUCCESS`. A name that ends in .jsonl, .csv or
.parquet is one file, with `<stem>.rejects.jsonl` and, last, `<stem>.manifest.json` beside it. What has no manifest is a
leftover and is replaced. Knows nothing of records.
"""

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from job.config.sections import StorageSection
from job.errors import ConfigError, MissingError, OutputError
from job.storage.folders import MANIFEST, FileEntry, Manifest, write_manifest
from job.storage.keys import local_path, scheme_of, split_file
from job.storage.open import open_store
from job.storage.store import Store
from job.summarization.identity import differences
from job.summarization.writers import WRITERS, Write, json_line_parts, json_lines

SUCCESS = "_SUCCESS"
PART = re.compile(r"(parts|rejects)/part-\d{5}\.jsonl")
DIFFERENCES_SHOWN = 5


@dataclass(frozen=True)
class Output:
    """A store and the keys in it; `success` is None where the manifest itself is the last file."""

    uri: str
    store: Store
    summaries: str
    rejects: str
    manifest: str
    success: str | None

    def write_summaries(self, folder: Path) -> AbstractContextManager[Write]:
        """The writer of summaries, to files that lie in `folder` as they will in the store."""
        if self.success:
            return json_line_parts(folder / self.summaries)
        writer: AbstractContextManager[Write] = WRITERS[PurePosixPath(self.summaries).suffix](folder / self.summaries)
        return writer

    def write_rejects(self, folder: Path) -> AbstractContextManager[Write]:
        """The writer of rejects, in the same way."""
        return json_line_parts(folder / self.rejects) if self.success else json_lines(folder / self.rejects)


def open_output(uri: str, storage: StorageSection) -> Output:
    """The output that `uri` names; ConfigError if it names no place."""
    if PurePosixPath(uri).suffix not in WRITERS:
        return Output(uri, open_store(uri, storage), "parts", "rejects", MANIFEST, SUCCESS)
    folder, name = split_file(uri)
    stem = PurePosixPath(name).stem
    return Output(uri, open_store(folder, storage), name, f"{stem}.rejects.jsonl", f"{stem}.{MANIFEST}", None)


def check_apart(output: str, inputs: list[str]) -> None:
    """ConfigError if the output lies in the input: the next run would summarize summaries."""
    for uri in inputs:
        if _absolute(output) == _absolute(uri) or f"{_absolute(output)}/".startswith(f"{_absolute(uri)}/"):
            raise ConfigError(
                f"output: {output} lies in the input {uri}, so the next run would read it as conversations; "
                "choose a place of its own"
            )


def find_finished(output: Output, identity: Mapping[str, Any]) -> Manifest | None:
    """What an earlier run of this identity left, every file in its place; None where there is nothing to keep.

    A run that rejected too many records counts too: what it generated is good. OutputError if the place is taken by
    something else.
    """
    manifest = _read_manifest(output)
    if manifest is None:
        return None
    other = differences(manifest.extra["identity"], identity)
    if other and manifest.extra.get("state") == "finished":
        shown = "; ".join(other[:DIFFERENCES_SHOWN]) + ("; …" if len(other) > DIFFERENCES_SHOWN else "")
        raise OutputError(
            f"{output.uri} holds finished summaries of something else ({shown}): choose another output, or remove "
            f"{output.store.uri}/{output.manifest} to have it replaced"
        )
    return manifest if not other and _is_whole(output, manifest) else None


def check_writable(output: Output) -> None:
    """Write and remove a small object, so that hours of work do not end at a closed door; raises what the end would."""
    probe = f".recap-probe-{uuid.uuid4().hex}"
    output.store.write(probe, b"")
    output.store.delete(probe)


def publish(output: Output, folder: Path, extra: Mapping[str, Any]) -> None:
    """Replace what is there by the files in `folder`; the manifest last, so that nothing half-written is ever found."""
    manifest = write_manifest(folder, extra)
    if output.success:
        output.store.delete(output.success)
    output.store.delete(output.manifest)
    for key in list(_leftovers(output)):
        output.store.delete(key)
    for key in manifest.files:
        output.store.upload(folder / key, key)
    output.store.write(output.manifest, manifest.to_json())
    if extra["state"] == "finished":
        _mark(output)


def accept(output: Output, manifest: Manifest) -> None:
    """Let what is there count as finished, where it does not yet: the limit was raised, or the run died before."""
    if manifest.extra["state"] != "finished":
        accepted = Manifest(manifest.files, manifest.extra | {"state": "finished"})
        output.store.write(output.manifest, accepted.to_json())
    _mark(output)


def _mark(output: Output) -> None:
    """Write the success marker, unless it is there or the manifest itself is the last file."""
    if output.success:
        try:
            output.store.stat(output.success)
        except MissingError:
            output.store.write(output.success, b"")


def _read_manifest(output: Output) -> Manifest | None:
    where = f"{output.store.uri}/{output.manifest}"
    try:
        raw = json.loads(output.store.read(output.manifest))
        files = {key: FileEntry(int(file["size"]), str(file["sha256"])) for key, file in raw["files"].items()}
        extra = dict(raw["extra"])
        known = isinstance(extra["identity"], dict) and isinstance(extra["counts"], dict) and bool(extra["state"])
    except MissingError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise OutputError(f"{where} is there and belongs to something other than summaries: choose another output")
    return Manifest(files, extra)


def _is_whole(output: Output, manifest: Manifest) -> bool:
    try:
        return all(output.store.stat(key).size == entry.size for key, entry in manifest.files.items())
    except MissingError:
        return False


def _leftovers(output: Output) -> Iterator[str]:
    """Parts of an earlier run, which may have had more of them; nothing that recap did not write."""
    if output.success:
        for folder in (output.summaries, output.rejects):
            yield from (entry.key for entry in output.store.list(folder) if PART.fullmatch(entry.key))


def _absolute(uri: str) -> str:
    return (str(Path(local_path(uri)).resolve()) if scheme_of(uri) == "file" else uri).rstrip("/")
