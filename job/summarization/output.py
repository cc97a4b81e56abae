"""The place of the summaries: what is there already, and how new ones come to be there, whole or not at all.

A folder gets `parts/`, `rejects/`, `manifest.json` and, last of all, `_SUCCESS`. A name that ends in .jsonl, .csv or
.parquet is one file, with `<stem>.rejects.jsonl` and, last, `<stem>.manifest.json` beside it. What a manifest names, or
an interrupted run left (its marker says so), is replaced; anything else is refused. Knows nothing of records.
"""

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from job.config.sections import CsvOutputSection, StorageSection, names_one_file
from job.errors import ConfigError, MissingError, OutputError
from job.identity import differences
from job.storage.claim import (
    MARKER,
    check_unobstructed,
    check_vouched,
    claimed,
    entries_at,
    is_claimed,
)
from job.storage.folders import MANIFEST, FileEntry, Manifest, write_manifest
from job.storage.keys import local_path, scheme_of, split_file
from job.storage.lease import keeps_guard
from job.storage.open import InputFile, open_store
from job.storage.store import Entry, Store
from job.summarization.identity import late_files
from job.summarization.writers import Write, json_line_parts, json_lines, one_file
from job.telemetry import warn

SUCCESS = "_SUCCESS"
KIND = "summaries"
PART = re.compile(r"(parts|rejects)/part-\d{5}\.jsonl")
CHUNKS = "_chunks"  # names that start with _ or . are no input of anything
DIFFERENCES_SHOWN = 5


@dataclass(frozen=True)
class Output:
    """A store and the keys in it; `success` is None where the manifest itself is the last file.

    `chunks` is the folder of what is committed while the run goes on; nothing is left of it when the run is done.
    """

    uri: str
    store: Store
    summaries: str
    rejects: str
    manifest: str
    marker: str
    success: str | None
    chunks: str

    def replaces(self, key: str) -> bool:
        """Whether a run writes at this key, or removes what is there."""
        if (self.success and PART.fullmatch(key)) or key.startswith(f"{self.chunks}/"):
            return True
        return key in (self.summaries, self.rejects, self.manifest, self.marker, self.success)

    def write_summaries(self, folder: Path, csv: CsvOutputSection) -> AbstractContextManager[Write]:
        """Return the writer of summaries, to files in `folder` that are laid out as in the store."""
        path = folder / self.summaries
        return json_line_parts(path) if self.success else one_file(path, csv)

    def write_rejects(self, folder: Path) -> AbstractContextManager[Write]:
        """The writer of rejects, in the same way."""
        return (
            json_line_parts(folder / self.rejects)
            if self.success
            else json_lines(folder / self.rejects)
        )


def open_output(uri: str, storage: StorageSection) -> Output:
    """The output that `uri` names; ConfigError if it names no place."""
    if not names_one_file(uri):
        return Output(
            uri, open_store(uri, storage), "parts", "rejects", MANIFEST, MARKER, SUCCESS, CHUNKS
        )
    folder, name = split_file(uri)
    stem = PurePosixPath(name).stem
    beside = f"{stem}.rejects.jsonl", f"{stem}.{MANIFEST}", f".{stem}.publishing.json"
    return Output(uri, open_store(folder, storage), name, *beside, None, f".{stem}.chunks")


def check_apart(output: Output, inputs: Sequence[str], files: Sequence[InputFile]) -> None:
    """ConfigError if the output lies in the input, or a file of the input where the output puts one of its own."""
    for uri in inputs:
        if _absolute(output.uri) == _absolute(uri) or f"{_absolute(output.uri)}/".startswith(
            f"{_absolute(uri)}/"
        ):
            raise ConfigError(
                f"output: {output.uri} lies in the input {uri}, so the next run would read it as conversations; "
                "choose a place of its own"
            )
    place = f"{_absolute(output.store.uri)}/"
    for file in files:
        key = _absolute(file.uri).removeprefix(place)
        if output.replaces(key):
            raise ConfigError(
                f"output: {output.uri} would replace {file.uri}, which is a file of the input; choose another place"
            )


def find_finished(output: Output, identity: Mapping[str, Any]) -> Manifest | None:
    """What an earlier run of this identity left, every file in its place; None where there is nothing to keep.

    A run that rejected too many records counts too: what it generated is good. Files that came to a finished one's
    input since are told of, and left for another night. OutputError if the place is taken by something else; an output
    of no records is free for any other.
    """
    taken, manifest = _taken(output), _read_manifest(output)
    there = manifest.extra["identity"] if manifest else identity
    other = differences(there, identity, " ")
    is_finished = (
        manifest
        and manifest.extra["state"] == "finished"
        and manifest.extra["counts"].get("records") != 0
    )
    late = late_files(there, identity) if is_finished else []
    if late:
        some = late[:DIFFERENCES_SHOWN]
        warn(
            "files of the input are not in this finished output: they came later, or were left out then",
            count=len(late),
            files=some,
        )
    elif other and is_finished:
        shown = "; ".join(other[:DIFFERENCES_SHOWN]) + (
            "; …" if len(other) > DIFFERENCES_SHOWN else ""
        )
        raise OutputError(
            f"{output.uri} holds finished summaries of something else ({shown}): choose another output, or remove "
            "what is there"
        )
    _check_ours(output, taken, manifest)
    return manifest if manifest and (late or not other) and _is_whole(output, manifest) else None


def check_free(output: Output) -> None:
    """OutputError if the place is taken by something that is no output of summaries."""
    taken = _taken(output)
    _check_ours(output, taken, _read_manifest(output))


def check_writable(output: Output) -> None:
    """Write and remove a small object, so that hours of work do not end at a closed door; raises what the end would.

    Warns where the store ignores the condition by which workers agree on one input.
    """
    probe = f"{output.chunks}/probe-{uuid.uuid4().hex}"  # what a killed run leaves of it goes with the chunks
    output.store.write(probe, b"")
    if not keeps_guard(output.store, probe, b""):
        warn(
            "this store ignores conditional writes: workers that begin at once may have to begin anew",
            uri=output.uri,
        )
    output.store.delete(probe)


def publish(output: Output, folder: Path, extra: Mapping[str, Any]) -> None:
    """Replace what is there by the files in `folder`; the manifest last, so that nothing half-written is ever found."""
    manifest = write_manifest(folder, extra)
    with claimed(output.store, output.marker, KIND):
        if output.success:
            output.store.delete(output.success)
        output.store.delete(output.manifest)
        for entry in list(_parts(output)):  # an earlier run may have had more of them
            output.store.delete(entry.key)
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
    if is_claimed(output.store, output.marker, KIND):  # the run died between the manifest and here
        output.store.delete(output.marker)


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
        files = {
            key: FileEntry(int(file["size"]), str(file["sha256"]))
            for key, file in raw["files"].items()
        }
        extra = dict(raw["extra"])
        known = (
            isinstance(extra["identity"], dict)
            and isinstance(extra["counts"], dict)
            and bool(extra["state"])
        )
    except MissingError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise OutputError(
            f"{where} is there and belongs to something other than summaries: choose another output"
        )
    if not output.success and output.summaries not in files:
        raise OutputError(
            f"{where} is there and belongs to {', '.join(files)}, not to {output.summaries}: choose another output"
        )
    return Manifest(files, extra)


def _is_whole(output: Output, manifest: Manifest) -> bool:
    try:
        return all(
            output.store.stat(key).size == entry.size for key, entry in manifest.files.items()
        )
    except MissingError:
        return False


def _taken(output: Output) -> list[Entry]:
    """What is there that a run would replace and a manifest must vouch for; nothing where an interrupted run left it.

    To be asked before the manifest is read: a publication writes its manifest before it removes its marker, so one that
    ends meanwhile (the same run, started twice) is not taken for somebody's files.
    """
    keys = (output.success,) if output.success else (output.summaries, output.rejects)
    taken = [*_parts(output), *entries_at(output.store, keys)]
    return [] if is_claimed(output.store, output.marker, KIND) else taken


def _check_ours(output: Output, taken: Sequence[Entry], manifest: Manifest | None) -> None:
    """Raise OutputError if something is in the way, or if the manifest does not vouch for all that is
    there; the success marker is in none, nor there without it.
    """
    files = [output.manifest, output.marker]
    folders = [output.chunks]
    if output.success:
        files.append(output.success)
        folders += [output.summaries, output.rejects]
    else:
        files += [output.summaries, output.rejects]
    check_unobstructed(output.store, files, folders)
    check_vouched(
        output.store,
        (entry for entry in taken if not manifest or entry.key != output.success),
        manifest,
    )


def _parts(output: Output) -> Iterator[Entry]:
    """The parts that are there, of whichever run; nothing where the summaries are one file."""
    if output.success:
        for folder in (output.summaries, output.rejects):
            yield from (entry for entry in output.store.list(folder) if PART.fullmatch(entry.key))


def _absolute(uri: str) -> str:
    return (str(Path(local_path(uri)).resolve()) if scheme_of(uri) == "file" else uri).rstrip("/")
