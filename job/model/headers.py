"""Read the headers of safetensors files: names and shapes of tensors, and no weights."""

import json
from pathlib import Path
from typing import BinaryIO

from job.errors import DataError

MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit

AGAIN = "copy or fetch it again"


def header_shapes(file: BinaryIO, size: int, where: str) -> dict[str, list[int]]:
    """Return the shape of each tensor, by name, in a file that may be elsewhere.

    Raise DataError unless the file is as long as its header says. It consists of 8 bytes
    with the header's length, the header, which is JSON with offsets and shape of each tensor, and
    the tensors. `size` is that of all in bytes, `where` names the file in errors.
    """
    header = b""
    length = int.from_bytes(file.read(8), "little")
    if size >= 8 and length <= min(size, MAX_HEADER_BYTES):
        header = file.read(length)
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        wanted = 8 + length + max([0, *(each["data_offsets"][1] for each in tensors.values())])
        shapes = {name: list(tensor["shape"]) for name, tensor in tensors.items()}
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise DataError(
            f"{where} is no safetensors file, or cut short within its header ({size:,} bytes); "
            f"{AGAIN}"
        ) from error
    if size != wanted:
        raise DataError(f"{where} has {size:,} bytes, its header says {wanted:,}; {AGAIN}")
    return shapes


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Return the shape of each tensor, by name; raise SafetensorError for another kind of file."""
    from safetensors import safe_open

    shapes = {}
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118
            shapes[name] = list(file.get_slice(name).get_shape())
    return shapes
