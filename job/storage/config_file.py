"""Read the text of a config from a file, from S3 or from standard input.

It is in `storage`, because `config` is below: a section of a config sets up a store.
"""

import sys
from pathlib import Path

from job.config.document import ConfigText
from job.errors import ConfigError, ForbiddenError, MissingError
from job.storage.open import read_uri

STANDARD_INPUT = "-"


def read_config(source: str) -> ConfigText:
    """Return the text of the config at a path, at s3://…, or on standard input (`-`).

    Raise MissingError or ForbiddenError if there is no such file or it may not be read, ConfigError
    if it is not UTF-8, and the errors of the storage for s3://.
    """
    name = "standard input" if source == STANDARD_INPUT else source
    content = _read_bytes(source)
    try:
        # Editors of Windows begin a file with a byte order mark, which utf-8-sig removes.
        return ConfigText(name, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from None


def _read_bytes(source: str) -> bytes:
    if source == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    if source.startswith("s3://"):
        return read_uri(source)
    try:
        return Path(source).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(
            f"{source}: no such file; give a config's path, s3://… or - for standard input"
        ) from None
    except IsADirectoryError:
        raise MissingError(f"{source}: is a folder; give the path of a config in it") from None
    except PermissionError:
        raise ForbiddenError(f"{source}: may not be read by this user") from None
