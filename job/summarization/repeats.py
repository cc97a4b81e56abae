"""Which ids stand more than once in a whole input, at constant memory: ids in by digest, repeats out by place.

Digests go to up to 256 files on this machine, each id by its first byte, and each file is looked through alone. The
repeats of each go to a file too, in order, and these are read side by side. What is held is the different ids of one
file. Knows nothing of what ids are of.
"""

import heapq
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

RECORD = struct.Struct(">16sIQ?")  # digest, file, line, whether the id was derived
FOUND = struct.Struct(">IQIQQ")  # file and line, those of the first, number
RECORDS_AT_ONCE = 512  # of each file that is read; there may be all of them
Place = tuple[int, int]


class Repeat(NamedTuple):
    """An id that stood before: where it stands now, where it stood first, and its number among those."""

    place: Place
    first: Place
    number: int


class Ids:
    """The ids so far; `add` in the order of the input, then `repeats`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._stack = folder, stack
        self._files: dict[int, BinaryIO] = {}

    def add(self, id: bytes, place: Place, is_derived: bool) -> None:
        """Note an id by its 16 bytes of digest."""
        file = self._files.get(id[0]) or self._open(id[0])
        file.write(RECORD.pack(id, *place, is_derived))

    def _open(self, number: int) -> BinaryIO:
        file = self._files[number] = self._stack.enter_context(
            (self._folder / f"{number:03d}").open("wb")
        )
        return file

    def repeats(self) -> Iterator[Repeat]:
        """Every id but the first of its kind, in the order of the input."""
        runs = []
        for file in self._files.values():
            file.close()
            path = Path(file.name)
            found = path.with_suffix(".repeats")
            with path.open("rb") as ids, found.open("wb") as target:
                _look_through(ids, target)
            path.unlink()
            if found.stat().st_size:
                runs.append(
                    chain.from_iterable(_blocks(self._stack.enter_context(found.open("rb")), FOUND))
                )
        for number, line, first_number, first_line, times in heapq.merge(*runs):
            yield Repeat((number, line), (first_number, first_line), times)


@contextmanager
def counted_ids(folder: Path) -> Iterator[Ids]:
    """Ids that are kept in `folder`, with their repeats, while the block lasts."""
    with ExitStack() as stack:
        yield Ids(folder, stack)


def _look_through(ids: BinaryIO, target: BinaryIO) -> None:
    """Write the repeats among these ids."""
    seen: dict[bytes, tuple[Place, int]] = {}
    for block in _blocks(ids, RECORD):
        for id, number, line, is_derived in block:
            if id not in seen:
                seen[id] = (number, line), 1
                continue
            first, times = seen[id]
            if is_derived:  # only these are numbered: the others are rejects
                seen[id] = first, times + 1
            target.write(FOUND.pack(number, line, *first, times + 1))


def _blocks(file: BinaryIO, kind: struct.Struct) -> Iterator[Iterator[tuple[Any, ...]]]:
    while block := file.read(kind.size * RECORDS_AT_ONCE):
        yield kind.iter_unpack(block)
