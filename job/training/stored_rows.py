"""Rows that a machine encodes once: for all attempts of a run, and all runs of one data and prompt.

Every rank memory-maps the same files.
"""

import tempfile
from pathlib import Path
from typing import Any

from job.config.commands import TrainConfig
from job.model.fetch import small_identity
from job.model.files import CONFIG
from job.prompt.template import prompt_digest
from job.storage.atomic import writing
from job.storage.folders import sha256_file
from job.training.examples import Examples
from job.training.prepared import prepared_data
from job.training.rows import RowSettings, Splits, check_rows, read_rows, write_rows
from job.training.usable import check_kinds

TRAIN = "train.arrow"
VALIDATION = "validation.arrow"


def rows_identity(
    config: TrainConfig, examples: Examples, base: Path, settings: RowSettings
) -> dict[str, Any] | None:
    """Return all that the rows depend on besides recap's code; None if that is not known.

    The conversations may be of a moment that is gone, and a tokenizer may have code of its own.
    `base` has the small files of a base at least: a plan encodes the rows of its training.
    """
    if examples.stored_as is None or config.model.trust_remote_code:
        return None
    encoder = settings.encoder
    return {
        "data": examples.stored_as,
        "references": settings.references,
        "judged": settings.judged,
        "prompt": prompt_digest(encoder.prompt),
        "config": sha256_file(base / CONFIG),  # chooses the tokenizer's class
        "tokenizer": small_identity(config.model.base, base)["tokenizer_digest"],
        "max_tokens": encoder.max_tokens,
    }


def encode_once(
    examples: Examples, settings: RowSettings, identity: dict[str, Any] | None, work: Path
) -> Splits:
    """Return the rows, from the cache if this machine has encoded them before.

    Their files are in a new folder of `work`: the rows themselves without an identity or where the
    cache cannot be written, else links to the cache. `check_splits` judges them.
    """
    stored = None
    if identity is not None:
        with prepared_data() as prepared:
            stored = prepared.find("rows", identity) or prepared.store(
                "rows", identity, lambda part: _write_splits(examples, settings, part)
            )
    with writing(work):
        folder = Path(tempfile.mkdtemp(prefix="rows-", dir=work))
        if stored is None:
            _write_splits(examples, settings, folder)
        else:
            # What packing makes of rows, datasets writes beside their file. In the cache it would
            # be a file that the manifest does not name.
            for file in stored.iterdir():
                (folder / file.name).symlink_to(file)
    return Splits(read_rows(folder / TRAIN), read_rows(folder / VALIDATION))


def check_splits(splits: Splits, settings: RowSettings) -> None:
    """Warn and raise as `check_rows` does, for both splits."""
    check_rows("train", splits.train.counted, settings)
    check_rows("validation", splits.validation.counted, settings)
    if settings.judged == "thumbs":
        check_kinds(splits.train.dataset["label"])  # some may fit into no row


def _write_splits(examples: Examples, settings: RowSettings, folder: Path) -> None:
    write_rows(examples.train, settings, folder / TRAIN)
    write_rows(examples.validation, settings, folder / VALIDATION)
