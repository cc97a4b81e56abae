"""Which files a night reads, and whether they hold enough records to be a night at all."""

from dataclasses import replace
from pathlib import Path

from job.config.commands import SummarizeConfig
from job.config.sections import as_list
from job.conversations.transcript_files import summaries_apart
from job.errors import MissingError
from job.storage.keys import local_path, scheme_of
from job.storage.open import Inputs, find_inputs
from job.storage.selection import Selection, log_left_out
from job.telemetry import warn

MAX_NAMED = 3


def find_night_inputs(config: SummarizeConfig) -> Inputs:
    """Return the files of the input, listed once; log what is left out below it.

    A folder or a prefix that ends in a slash may be empty, with a warning, where
    `limits.min_records` is 0. Raises MissingError for any other URI that names no file.
    """
    inputs = find_inputs(as_list(config.input), config.storage, Selection.of(config.data))
    apart = summaries_apart(inputs.files)
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
    """Raise MissingError if the input holds fewer records than `limits.min_records`."""
    wanted = config.limits.min_records
    if records < wanted:
        uris = as_list(config.input)
        named = ", ".join(uris[:MAX_NAMED]) + (", …" if len(uris) > MAX_NAMED else "")
        raise MissingError(
            f"{named}: {records} records, wanted at least {wanted} (limits.min_records); put the "
            "missing files there, or lower the limit"
        )


def _is_folder(uri: str) -> bool:
    return uri.endswith("/") or (scheme_of(uri) == "file" and Path(local_path(uri)).is_dir())
