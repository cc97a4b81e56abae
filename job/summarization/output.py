"""The output of a night: the names of its files, and their atomic publication.

A folder gets `parts/`, `rejects/`, `report.html`, `manifest.json` and, last of all, `_SUCCESS`. A
name that ends in .jsonl, .csv or .parquet is one file, with `<stem>.rejects.jsonl`,
`<stem>.report.html` and, last, `<stem>.manifest.json` beside it. Readers trust the file that is
written last. What a challenger wrote in shadow is in `shadow.jsonl` or `<stem>.shadow.jsonl`.
"""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from job.config.sections import CsvOutputSection, StorageSection, names_one_file
from job.errors import ConfigError, MissingError
from job.storage.claim import MARKER, hold_claim
from job.storage.folders import MANIFEST, Manifest, write_manifest
from job.storage.keys import local_path, scheme_of, split_file
from job.storage.lease import keeps_guard
from job.storage.open import InputFile, open_store
from job.storage.store import Entry, Store
from job.summarization.writers import Write, json_line_parts, json_lines, one_file
from job.telemetry import warn

SUCCESS = "_SUCCESS"
KIND = "summaries"  # of publication, in the marker that is there while it lasts
PART = re.compile(r"(parts|rejects)/part-\d{5}\.jsonl")
SHADOW_ENDING = ".shadow.jsonl"
CHUNKS = "_chunks"  # readers skip names that start with _ or .


@dataclass(frozen=True)
class Output:
    """A store, and the keys of the output in it."""

    uri: str
    store: Store
    summaries: str
    rejects: str
    report: str
    shadow: str
    manifest: str
    marker: str  # there while the files are replaced
    success: str | None  # None if the manifest itself is the last file
    chunks: str  # folder of committed chunks, which is deleted when the night is done

    @property
    def is_folder(self) -> bool:
        """True for a folder with parts, False for one file of summaries."""
        return self.success is not None

    def replaces(self, key: str) -> bool:
        """Return True if a night writes or deletes this key."""
        if key.startswith(f"{self.chunks}/"):
            return True
        if self.is_folder and PART.fullmatch(key):
            return True
        files = (self.summaries, self.rejects, self.report, self.shadow)
        return key in (*files, self.manifest, self.marker, self.success)

    def parts(self) -> Iterator[Entry]:
        """Yield the parts that are there, of whichever night; nothing for one file of summaries."""
        if self.is_folder:
            for folder in (self.summaries, self.rejects):
                for entry in self.store.list(folder):
                    if PART.fullmatch(entry.key):
                        yield entry

    def write_summaries(
        self, folder: Path, csv: CsvOutputSection, has_candidates: bool = False
    ) -> AbstractContextManager[Write]:
        """Open a writer of summaries. It writes to files in `folder`, named as in the store.

        Tables have columns of candidates if there are several of each summary.
        """
        path = folder / self.summaries
        return json_line_parts(path) if self.is_folder else one_file(path, csv, has_candidates)

    def write_rejects(self, folder: Path) -> AbstractContextManager[Write]:
        """Open a writer of rejects. It writes to files in `folder`, named as in the store."""
        path = folder / self.rejects
        return json_line_parts(path) if self.is_folder else json_lines(path)

    def write_shadow(self, folder: Path) -> AbstractContextManager[Write]:
        """Open a writer of what a challenger wrote beside the adapter; there are no parts of it."""
        return json_lines(folder / self.shadow)

    def has_success(self) -> bool:
        """Return True if the success marker is there, or the manifest itself is the last file."""
        if self.success is None:
            return True
        try:
            self.store.stat(self.success)
        except MissingError:
            return False
        return True

    def write_success(self) -> None:
        """Write the success marker, unless it is there or the manifest itself is the last file."""
        if self.success is not None and not self.has_success():
            self.store.write(self.success, b"")


def open_output(uri: str, storage: StorageSection) -> Output:
    """Return the output at `uri`. Raise ConfigError if no output can be there."""
    if not names_one_file(uri):
        return Output(
            uri=uri,
            store=open_store(uri, storage),
            summaries="parts",
            rejects="rejects",
            report="report.html",
            shadow="shadow.jsonl",
            manifest=MANIFEST,
            marker=MARKER,
            success=SUCCESS,
            chunks=CHUNKS,
        )
    folder, name = split_file(uri)
    stem = PurePosixPath(name).stem
    return Output(
        uri=uri,
        store=open_store(folder, storage),
        summaries=name,
        rejects=f"{stem}.rejects.jsonl",
        report=f"{stem}.report.html",
        shadow=f"{stem}{SHADOW_ENDING}",
        manifest=f"{stem}.{MANIFEST}",
        marker=f".{stem}.publishing.json",
        success=None,
        chunks=f".{stem}.chunks",
    )


def check_apart(output: Output, inputs: Sequence[str], files: Sequence[InputFile]) -> None:
    """Raise ConfigError if the output is inside the input, or would replace a file of the input."""
    for uri in inputs:
        if f"{_absolute(output.uri)}/".startswith(f"{_absolute(uri)}/"):
            raise ConfigError(
                f"output: {output.uri} lies in the input {uri}, so the next run would read it as "
                "conversations; choose another location"
            )
    root = f"{_absolute(output.store.uri)}/"
    for file in files:
        if output.replaces(_absolute(file.uri).removeprefix(root)):
            raise ConfigError(
                f"output: {output.uri} would replace {file.uri}, which is a file of the input; "
                "choose another location"
            )


def check_writable(output: Output) -> None:
    """Write and delete a small object, and raise the store's error if that fails.

    Otherwise hours of work could end at an output that nobody may write. Log a warning if the store
    ignores conditional writes, by which workers agree on the input.
    """
    # The name is one of those that are deleted with the chunks, if this process dies before.
    probe = f"{output.chunks}/probe-{uuid.uuid4().hex}"
    output.store.write(probe, b"")
    if not keeps_guard(output.store, probe, b""):
        warn(
            "this store ignores conditional writes: workers that begin at once may have to begin "
            "anew",
            uri=output.uri,
        )
    output.store.delete(probe)


def publish(output: Output, folder: Path, extra: Mapping[str, Any]) -> Manifest:
    """Replace the output by the files in `folder`, and return its manifest, which has `extra`.

    The success marker is written only if the state in `extra` is `finished`.
    """
    manifest = write_manifest(folder, extra)
    with hold_claim(output.store, output.marker, KIND):
        # From here on there is no output for readers, until the new manifest is there. The claim
        # tells the next run that files without a manifest are recap's own.
        if output.success:
            output.store.delete(output.success)
        output.store.delete(output.manifest)

        # An earlier night may have had more parts than this one, a report, or a challenger.
        for entry in list(output.parts()):
            output.store.delete(entry.key)
        output.store.delete(output.report)
        output.store.delete(output.shadow)
        for key in manifest.files:
            output.store.upload(folder / key, key)

        output.store.write(output.manifest, manifest.to_json())
        if extra["state"] == "finished":
            output.write_success()
    return manifest


def _absolute(uri: str) -> str:
    if scheme_of(uri) == "file":
        uri = str(Path(local_path(uri)).resolve())
    return uri.rstrip("/")
