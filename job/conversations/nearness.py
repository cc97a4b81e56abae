"""Pairs of texts that nearly repeat each other: exact Jaccard similarity of word 5-grams.

Only texts that share most of their 5-grams with others are compared at all, so boilerplate that
everybody opens with costs nothing.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHINGLE_WORDS = 5
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
    what spaces separate. 10,000 texts of 200 words take about 3 seconds and 0.15 GB.
    """
    import numpy as np

    sets = _shingle_sets([*left, *(right or ())])
    if not left or not sets:
        return
    sizes = np.array([len(one) for one in sets])
    ends = np.cumsum(sizes)
    _, shingles = np.unique(np.concatenate(sets), return_inverse=True)

    # An inverted index of the sets that are searched: `owners` has, shingle by shingle, the sets
    # that have it. Those of one shingle are `counts` many, from `starts` on.
    first = 0 if right is None else len(left)
    searched = shingles[ends[first] - sizes[first] :] if first < len(sets) else shingles[:0]
    by_shingle = np.argsort(searched, kind="stable")
    owners = np.repeat(np.arange(first, len(sets)), sizes[first:])[by_shingle]
    counts = np.bincount(searched, minlength=int(shingles.max()) + 1)
    starts = np.cumsum(counts) - counts

    alone = 1 if right is None else 0  # a text finds itself
    for index in range(len(left)):
        own = shingles[ends[index] - sizes[index] : ends[index]]
        own = own[counts[own] > alone]
        # The union of two sets is no smaller than this one.
        if not len(own) or len(own) < threshold * sizes[index]:
            continue
        found = np.concatenate([owners[starts[one] : starts[one] + counts[one]] for one in own])
        shared_by_all = np.bincount(found)
        others = np.flatnonzero(shared_by_all)
        shared = shared_by_all[others]
        similarity = shared / (sizes[index] + sizes[others] - shared)
        is_near = (similarity >= threshold) & ((others > index) | (right is not None))
        for other in np.flatnonzero(is_near):
            yield NearPair(index, int(others[other]) - first, float(similarity[other]))


def _shingle_sets(texts: Sequence[str]) -> "list[NDArray[np.uint64]]":
    """Return the hashes of each text's shingles, each once."""
    import numpy as np

    numbers: dict[str, int] = {}
    sets = []
    for text in texts:
        words = [numbers.setdefault(word, len(numbers) + 1) for word in text.split()]
        words += [0] * (SHINGLE_WORDS - len(words))  # a short text is one shingle
        padded = np.array(words, dtype=np.uint64)
        length = len(padded) - SHINGLE_WORDS + 1
        mixed = np.zeros(length, dtype=np.uint64)
        for offset in range(SHINGLE_WORDS):
            mixed = (mixed ^ padded[offset : offset + length]) * np.uint64(MULTIPLIER)
            mixed ^= mixed >> np.uint64(29)
        sets.append(np.unique(mixed))
    return sets
