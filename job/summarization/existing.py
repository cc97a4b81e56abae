"""The output that is there before a night. An identical one is kept, a foreign one never replaced.

A night replaces what the manifest of an unfinished night names, and what an interrupted publication
left. Anything else belongs to others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from job.errors import DamagedError, MissingError, OutputError
from job.identity import differences
from job.storage.claim import check_unobstructed, check_vouched, entries_at, is_claimed
from job.storage.folders import Manifest, read_manifest_file
from job.storage.store import Entry
from job.summarization.output import KIND, Output
from job.telemetry import warn

MAX_DIFFERENCES_SHOWN = 5


def find_finished(output: Output, identity: Mapping[str, Any]) -> Manifest | None:
    """Return the manifest of an earlier night of this identity if all its files are there.

    A finished night is of this identity, too, if only files were added to its input since: log a
    warning, as they are left for another night. Return None if there is nothing to keep. Raise
    OutputError for another finished night with records, and for files that recap did not write.
    """
    existing = _existing_entries(output)
    manifest = _read_manifest(output)
    if manifest is None:
        _check_replaceable(output, existing, None)
        return None

    there = manifest.extra["identity"]
    has_records = manifest.extra["counts"].get("records") != 0
    is_finished = manifest.extra["state"] == "finished" and has_records
    different = differences(there, identity, " ")

    # Only a finished night protects its output. One that rejected too many records is kept by the
    # same night, because its summaries are good, and replaced by any other.
    late = _late_files(there, identity) if is_finished else []
    if late:
        warn(
            "files of the input are not in this finished output: they came later, or were left out "
            "then",
            count=len(late),
            files=late[:MAX_DIFFERENCES_SHOWN],
        )
    elif different and is_finished:
        shown = "; ".join(different[:MAX_DIFFERENCES_SHOWN])
        if len(different) > MAX_DIFFERENCES_SHOWN:
            shown += "; …"
        raise OutputError(
            f"{output.uri} holds finished summaries of something else ({shown}): choose another "
            "output, or remove what is there"
        )

    # Before the output is taken as done: a foreign file beside it must be an error every time, not
    # only when something of it is missing.
    _check_replaceable(output, existing, manifest)
    is_same = bool(late) or not different
    return manifest if is_same and _has_all_files(output, manifest) else None


def is_marked(output: Output, manifest: Manifest) -> bool:
    """Return True if the night of this manifest is a success and its success marker is there."""
    return manifest.extra["state"] == "finished" and output.has_success()


def check_free(output: Output) -> None:
    """Raise OutputError if the output belongs to something other than summaries."""
    existing = _existing_entries(output)
    _check_replaceable(output, existing, _read_manifest(output))


def mark_success(output: Output, manifest: Manifest) -> None:
    """Mark the output that is there as a success.

    It is none yet if the limit of rejects was raised since, or if its night died before the marker.
    """
    # The order of a publication: the manifest, the success marker, and last the marker of the
    # publication. A process that dies in between leaves what the next run completes.
    if manifest.extra["state"] != "finished":
        finished = Manifest(manifest.files, manifest.extra | {"state": "finished"})
        output.store.write(output.manifest, finished.to_json())
    output.write_success()
    if is_claimed(output.store, output.marker, KIND):
        output.store.delete(output.marker)


def _read_manifest(output: Output) -> Manifest | None:
    """Return the manifest of the output, or None. Raise OutputError if it is not of summaries."""
    where = f"{output.store.uri}/{output.manifest}"
    foreign = (
        f"{where} is there and belongs to something other than summaries: choose another output"
    )
    try:
        manifest = read_manifest_file(output.store, output.manifest)
    except MissingError:
        return None
    except DamagedError as error:
        # Not JSON of recap: any other program may write a file of this name.
        raise OutputError(f"{foreign} ({error})") from error

    # Other folders of recap have manifests too, with other facts.
    extra = manifest.extra
    has_facts = isinstance(extra.get("identity"), dict) and isinstance(extra.get("counts"), dict)
    if not has_facts or not extra.get("state"):
        raise OutputError(foreign)
    # `day.jsonl` and `day.csv` in one folder have the same name for their manifests.
    if not output.is_folder and output.summaries not in manifest.files:
        raise OutputError(
            f"{where} is there and belongs to {', '.join(manifest.files)}, not to "
            f"{output.summaries}: choose another output"
        )
    return manifest


def _existing_entries(output: Output) -> list[Entry]:
    """Return the entries that a night would replace, and that a manifest must name.

    None of them matters if an interrupted publication left them. Call this before the manifest is
    read.
    """
    keys = [output.success] if output.success else [output.summaries, output.rejects]
    keys += [output.report, output.shadow]
    existing = [*output.parts(), *entries_at(output.store, keys)]

    # The files are listed first, then the marker is looked for, and the manifest is read last. A
    # publication deletes its marker after it has written its manifest. So the files of one that
    # completes in between (the same night, started twice) are not taken for foreign ones.
    return [] if is_claimed(output.store, output.marker, KIND) else existing


def _check_replaceable(
    output: Output,
    existing: Sequence[Entry],
    manifest: Manifest | None,
) -> None:
    """Raise OutputError if the manifest does not name every entry, or if one has a needed name."""
    files = [output.manifest, output.marker, output.report, output.shadow]
    folders = [output.chunks]
    if output.success:
        files.append(output.success)
        folders += [output.summaries, output.rejects]
    else:
        files += [output.summaries, output.rejects]
    check_unobstructed(output.store, files, folders)

    # No manifest names the success marker; without a manifest, it is foreign.
    if manifest:
        existing = [entry for entry in existing if entry.key != output.success]
    check_vouched(output.store, existing, manifest)


def _has_all_files(output: Output, manifest: Manifest) -> bool:
    """Return True if every file is there in its full size."""
    try:
        for key, entry in manifest.files.items():
            if output.store.stat(key).size != entry.size:
                return False
    except MissingError:
        return False
    return True


def _late_files(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return files that only the second identity has, if everything else is the same in both."""
    known = {uri: version for uri, version in here["input"].items() if uri in there["input"]}
    if differences(there, {**here, "input": known}):
        return []
    return [uri for uri in here["input"] if uri not in known]
