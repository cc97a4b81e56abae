"""The input files of a night: find them, and notice if one changes while it is summarized."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from job.config.commands import SummarizeConfig
from job.config.sections import as_list
from job.conversations.transcript_files import separate_summaries
from job.errors import ConfigError, DataError, MissingError, RetryError
from job.storage.keys import local_path, scheme_of
from job.storage.open import InputFile, Inputs, find_inputs
from job.storage.selection import Selection, log_left_out
from job.telemetry import warn

MAX_NAMED = 3

# Versions of up to so many files of one store are requested one by one. For more, the store is
# listed, unless the listing would have more than LISTED_PER_ASKED entries for each of them: a page
# of 1,000 entries takes about as long as ten single requests.
ASKED_FOR = 50
LISTED_PER_ASKED = 100


def find_night_inputs(config: SummarizeConfig) -> Inputs:
    """Return the files of the input, listed once; log what is left out below it.

    A folder or a prefix that ends in a slash may be empty, with a warning, if `limits.min_records`
    is 0. Raise MissingError for any other URI that names no file.
    """
    inputs = find_inputs(as_list(config.input), config.storage, Selection.of(config.data))
    apart = separate_summaries(inputs.files)
    for summary in dict.fromkeys(file.uri for file in apart.summaries.values()):
        inputs.left_out.add(summary, "the summary of a transcript beside it")
    inputs = replace(inputs, files=apart.files)
    log_left_out(inputs.left_out)

    for uri, why in inputs.missing.items():
        if not _is_folder(uri):
            raise MissingError(why)
        if config.limits.min_records:
            raise MissingError(f"{why}; where an empty night is right, set limits.min_records: 0")
        warn("an input names no file, which limits.min_records: 0 allows", input=uri, why=why)
    return inputs


def check_enough(records: int, config: SummarizeConfig) -> None:
    """Raise MissingError if the input has fewer records than `limits.min_records`."""
    wanted = config.limits.min_records
    if records < wanted:
        uris = as_list(config.input)
        named = ", ".join(uris[:MAX_NAMED])
        if len(uris) > MAX_NAMED:
            named += ", …"
        raise MissingError(
            f"{named}: {records} records, wanted at least {wanted} (limits.min_records); put the "
            "missing files there, or lower the limit"
        )


def check_unchanged(files: Sequence[InputFile], listed: int = 0) -> None:
    """Raise RetryError if one of the files changed since it was listed.

    `listed` is the number of entries that a listing of their store would have.
    """
    by_store: dict[int, list[InputFile]] = {}
    for file in files:
        by_store.setdefault(id(file.store), []).append(file)

    for group in by_store.values():
        if len(group) > max(ASKED_FOR, listed // LISTED_PER_ASKED):
            versions = _list_versions(group)
        else:
            versions = _ask_versions(group)
        for file in group:
            if file.key not in versions:
                raise RetryError(f"{file.uri} was removed while it was summarized: run again")
            if versions[file.key] != file.version:
                raise RetryError(f"{file.uri} changed while it was summarized: run again")


@contextmanager
def unless_changed(file: InputFile) -> Iterator[None]:
    """Run a block that reads the file. Turn its error into RetryError if the file has changed."""
    try:
        yield
    except (DataError, MissingError, ConfigError):
        # ConfigError is S3's answer if an object now ends before the piece of it begins.
        check_unchanged([file])
        raise


def _list_versions(files: Sequence[InputFile]) -> dict[str, str]:
    """Return the versions by key of those of one store's files that exist, from a listing."""
    keys = {file.key for file in files}
    # Keys of other files may be unfit to be paths: they do not matter here.
    entries = files[0].store.list(skip=lambda key: key not in keys)
    return {entry.key: entry.version for entry in entries}


def _ask_versions(files: Sequence[InputFile]) -> dict[str, str]:
    """Return the versions by key of those of one store's files that exist, from a request each."""
    found = {}
    for file in files:
        with suppress(MissingError):
            found[file.key] = file.store.stat(file.key).version
    return found


def _is_folder(uri: str) -> bool:
    return uri.endswith("/") or (scheme_of(uri) == "file" and Path(local_path(uri)).is_dir())
