"""Which ids stand more than once in a whole input, at constant memory: ids in by digest, repeats out by place.

Digests go to a few hundred files on this machine, each id always to the same one, and each file is looked through
alone; what is held is one of them and the repeats themselves. Knows nothing of what ids are of.
"""

import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

FILES = 256  # by the digest's first byte
RECORD = struct.Struct(">16sIQ?")  # digest, file, line, whether the id was derived
Place = tuple[int, int]


@dataclass(frozen=True)
class Repeat:
    """An id that stood before: where it stood first, and how many times it has stood with this one."""

    first: Place
    number: int


class Ids:
    """The ids so far; `add` in the order of the input, then `repeats`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = [folder / f"{number:03d}" for number in range(FILES)]
        self._files = [stack.enter_context(path.open("wb")) for path in self._paths]

    def add(self, id: bytes, place: Place, is_derived: bool) -> None:
        """Note an id by its 16 bytes of digest."""
        self._files[id[0]].write(RECORD.pack(id, *place, is_derived))

    def repeats(self) -> Mapping[Place, Repeat]:
        """Every id but the first of its kind."""
        found: dict[Place, Repeat] = {}
        for path, file in zip(self._paths, self._files, strict=True):
            file.close()
            seen: dict[bytes, tuple[Place, int]] = {}
            for id, number, line, is_derived in RECORD.iter_unpack(path.read_bytes()):
                if id not in seen:
                    seen[id] = (number, line), 1
                    continue
                first, times = seen[id]
                if is_derived:  # only these are numbered: the others are rejects
                    seen[id] = first, times + 1
                found[number, line] = Repeat(first, times + 1)
            path.unlink()
        return found


@contextmanager
def counted_ids(folder: Path) -> Iterator[Ids]:
    """Ids that are kept in `folder` while the block lasts."""
    with ExitStack() as stack:
        yield Ids(folder, stack)
