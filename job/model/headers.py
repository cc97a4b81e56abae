"""Read the headers of safetensors files: names and shapes of tensors, and no weights."""

import json
from pathlib import Path
from typing import Any, BinaryIO

from job.errors import DataError

MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit

AGAIN = "copy or fetch it again"


def tensor_names(file: BinaryIO, size: int, where: str) -> list[str]:
    """Return the names of tensors; raise DataError unless a file is as long as its header says.

    The file consists of 8 bytes with the header's length, the header, which is JSON with the
    offsets of each tensor, and the tensors. `size` is that of all in bytes, `where` names the file
    in errors.
    """
    header = b""
    length = int.from_bytes(file.read(8), "little")
    if size >= 8 and length <= min(size, MAX_HEADER_BYTES):
        header = file.read(length)
    try:
        tensors = json.loads(header)
        wanted = 8 + length + _end_of_tensors(tensors)
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise DataError(
            f"{where} is no safetensors file, or cut short within its header ({size:,} bytes); "
            f"{AGAIN}"
        ) from error
    if size != wanted:
        raise DataError(f"{where} has {size:,} bytes, its header says {wanted:,}; {AGAIN}")
    return list(tensors)


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Return the shape of each tensor, by name; raise SafetensorError for another kind of file."""
    from safetensors import safe_open

    shapes = {}
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118
            shapes[name] = list(file.get_slice(name).get_shape())
    return shapes


def _end_of_tensors(header: Any) -> int:
    """Return where the last tensor ends, in bytes after the header."""
    end = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            end = max(end, tensor["data_offsets"][1])
    return end
