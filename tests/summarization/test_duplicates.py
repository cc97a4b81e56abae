"""Claims about ids that several records of an input have."""

import random
import tracemalloc
from hashlib import blake2b
from pathlib import Path

import pytest

from job.summarization.duplicates import Duplicate, open_id_log
from job.summarization.records import Position


def digest(name: int) -> bytes:
    return blake2b(str(name).encode(), digest_size=16).digest()


def found(folder: Path, ids: list[tuple[int, Position, bool]]) -> list[Duplicate]:
    with open_id_log(folder) as counted:
        for name, position, is_derived in ids:
            counted.add(digest(name), position, is_derived)
        return list(counted.duplicates())


@pytest.mark.parametrize("names", [1, 300, 20_000])
def test_every_id_but_the_first_is_a_repeat_in_the_order_of_the_input(tmp_path, names):
    draw = random.Random(names)
    ids = [
        (draw.randrange(names), Position(n // 1000, n % 1000 + 1), draw.random() < 0.5)
        for n in range(10_000)
    ]
    first: dict[int, Position] = {}
    numbers: dict[int, int] = {}
    wanted = []
    for name, position, is_derived in ids:
        if name in first:
            wanted.append(Duplicate(position, first[name], numbers[name] + 1))
            numbers[name] += is_derived
        first.setdefault(name, position)
        numbers.setdefault(name, 1)
    assert found(tmp_path / "ids", ids) == wanted


def test_what_is_held_does_not_grow_with_the_repeats(tmp_path):
    peaks = []
    for count in (6000, 60_000):
        with open_id_log(tmp_path / str(count)) as counted:
            for n in range(count):
                counted.add(digest(n % 3), Position(0, n + 1), False)
            tracemalloc.start()
            assert sum(1 for _ in counted.duplicates()) == count - 3
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
