"""Pairs of texts that nearly repeat each other: exact Jaccard similarity of word 5-grams.

Only texts that share most of their 5-grams with others are compared at all, so boilerplate that
everybody opens with costs nothing.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHINGLE_WORDS = 5
SHINGLES_AT_ONCE = 1 << 20  # looked up, so that the arrays between are small
# Odd, so that it permutes 64-bit integers: 2^64 over the golden ratio.
MULTIPLIER = 0x9E3779B97F4A7C15


class NearPair(NamedTuple):
    """The positions of two texts, and their similarity."""

    left: int
    right: int
    similarity: float


def near_pairs(
    left: Sequence[str], right: Sequence[str] | None, threshold: float
) -> Iterator[NearPair]:
    """Yield every pair of which the similarity is at least `threshold`.

    Without `right`, the pairs within `left`, each once with the lower position first. Words are
    what spaces separate. 10,000 texts of 200 words take about 3 seconds; in memory, a word takes 17
    bytes, and more only where others share it.
    """
    import numpy as np

    count = len(left) + len(right or ())
    shingles, ends = _shingles(chain(left, right or ()), count)
    if not left or not len(shingles):
        return
    sizes = np.diff(ends, prepend=0)
    # Most shingles are in one text alone, and no index needs them.
    common = _repeated(shingles)
    numbers, ends = _numbers_of(shingles, ends, common)
    del shingles

    # An inverted index of the sets that are searched: `owners` has, shingle by shingle, the sets
    # that have it. Those of one shingle are `counts` many, from `starts` on.
    first = 0 if right is None else len(left)
    begin = int(ends[first - 1]) if first else 0
    searched = numbers[begin:]
    by_shingle = np.argsort(searched, kind="stable")
    kept = np.diff(ends, prepend=0)[first:]
    owners = np.repeat(np.arange(first, count), kept)[by_shingle]
    counts = np.bincount(searched, minlength=len(common))
    starts = np.cumsum(counts) - counts

    alone = 1 if right is None else 0  # a text finds itself
    for index in range(len(left)):
        own = numbers[ends[index - 1] if index else 0 : ends[index]]
        own = own[counts[own] > alone]
        # The union of two sets is no smaller than this one.
        if not len(own) or len(own) < threshold * sizes[index]:
            continue
        found = np.concatenate([owners[starts[one] : starts[one] + counts[one]] for one in own])
        others, shared = np.unique(found, return_counts=True)
        similarity = shared / (sizes[index] + sizes[others] - shared)
        is_near = (similarity >= threshold) & ((others > index) | (right is not None))
        for other in np.flatnonzero(is_near):
            yield NearPair(index, int(others[other]) - first, float(similarity[other]))


def _shingles(texts: Iterable[str], count: int) -> "tuple[NDArray[np.uint64], NDArray[np.int64]]":
    """Return the hashes of the shingles of `count` texts, each once a text, and where each ends."""
    import numpy as np

    numbers: dict[str, int] = {}
    flat = array("Q")
    ends = np.zeros(count, dtype=np.int64)
    for index, text in enumerate(texts):
        words = [numbers.setdefault(word, len(numbers) + 1) for word in text.split()]
        words += [0] * (SHINGLE_WORDS - len(words))  # a short text is one shingle
        padded = np.array(words, dtype=np.uint64)
        length = len(padded) - SHINGLE_WORDS + 1
        mixed = np.zeros(length, dtype=np.uint64)
        for offset in range(SHINGLE_WORDS):
            mixed = (mixed ^ padded[offset : offset + length]) * np.uint64(MULTIPLIER)
            mixed ^= mixed >> np.uint64(29)
        flat.frombytes(np.unique(mixed).tobytes())
        ends[index] = len(flat)
    return np.frombuffer(flat, dtype=np.uint64), ends


def _repeated(shingles: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """Return the shingles that are there more than once, each once and sorted."""
    import numpy as np

    ordered = np.sort(shingles)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _numbers_of(
    shingles: "NDArray[np.uint64]", ends: "NDArray[np.int64]", common: "NDArray[np.uint64]"
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Return the positions in `common` of the shingles that are there, and where each text ends."""
    import numpy as np

    numbers = array("q")
    new_ends = np.zeros_like(ends)
    if not len(common):
        return np.frombuffer(numbers, dtype=np.int64), new_ends
    for start in range(0, len(shingles), SHINGLES_AT_ONCE):
        some = shingles[start : start + SHINGLES_AT_ONCE]
        places = np.searchsorted(common, some).clip(max=len(common) - 1)
        is_common = common[places] == some

        # Of the texts that end in these shingles.
        texts = slice(*np.searchsorted(ends, [start + 1, start + len(some) + 1]))
        new_ends[texts] = len(numbers) + np.cumsum(is_common)[ends[texts] - start - 1]
        numbers.frombytes(places[is_common].tobytes())
    return np.frombuffer(numbers, dtype=np.int64), new_ends
