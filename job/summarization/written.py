"""The files of a finished output, and their rows as they were before they were written.

JSON lines, CSV and Parquet are read. `writers` has the other direction.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from job.conversations.draft import RecordError
from job.conversations.json_text import MAX_RECORD_CHARACTERS
from job.conversations.opening import plain_stream
from job.conversations.read import read_json_lines
from job.errors import DamagedError
from job.storage.folders import Manifest
from job.storage.keys import below
from job.storage.open import InputFile
from job.summarization.output import Output


def written_files(output: Output, manifest: Manifest) -> Iterator[InputFile]:
    """Yield the files of summaries and rejects that the manifest names, but no shadow."""
    for key, entry in manifest.files.items():
        if key in (output.report, output.shadow):
            continue
        version = output.store.stat(key).version
        yield InputFile(below(output.store.uri, key), output.store, key, entry.size, version)


def written_rows(file: InputFile, columns: Sequence[str], remedy: str) -> Iterator[Any]:
    """Yield the rows of a file. Of Parquet, only the columns of `columns` that it has are read.

    A row of CSV has text alone, escaped as it was written. Raise DamagedError, with the remedy, for
    a line that recap did not write.
    """
    match PurePosixPath(file.key).suffix.lower():
        case ".csv":
            csv.field_size_limit(MAX_RECORD_CHARACTERS)
            with closing(file.store.open(file.key)) as stored:
                stream = plain_stream(stored, file.uri)
                yield from csv.DictReader(io.TextIOWrapper(stream, "utf-8-sig", newline=""))
        case ".parquet":
            yield from _parquet_rows(file, columns)
        case _:
            for where, row in read_json_lines(file):
                if isinstance(row, RecordError) or not isinstance(row, dict):
                    raise DamagedError(f"{where}: is not a line written by recap: {remedy}")
                yield row


def _parquet_rows(file: InputFile, columns: Sequence[str]) -> Iterator[Any]:
    from pyarrow import parquet

    with TemporaryDirectory() as folder:
        path = Path(folder) / "summaries.parquet"
        file.store.download(file.key, path)
        with parquet.ParquetFile(path) as table:
            there = [name for name in columns if name in table.schema_arrow.names]
            for batch in table.iter_batches(columns=there):
                yield from batch.to_pylist()
