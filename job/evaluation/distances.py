"""The edit distance between two texts, in words: how much of a summary an agent changed.

Levenshtein's, over words without regard to case.
"""

from collections.abc import Sequence

from job.evaluation.words import words


def changed_share(text: str, other: str) -> float:
    """Return the edit distance over the words of the longer text: 0 is the same words, 1 none."""
    left = words(text)
    right = words(other)
    longer = max(len(left), len(right))
    return edit_distance(left, right) / longer if longer else 0.0


def edit_distance(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the least number of words to insert, delete or replace between two texts.

    By bit-parallel addition (Myers 1999, in Hyyrö's form), with one integer for a column of the
    table: two texts of 60 words take some 30 microseconds.
    """
    if not left:
        return len(right)
    positions: dict[str, int] = {}
    for place, word in enumerate(left):
        positions[word] = positions.get(word, 0) | 1 << place

    everything = (1 << len(left)) - 1
    last = 1 << len(left) - 1
    rising = everything  # where the column grows by one from a row to the next
    falling = 0
    distance = len(left)
    for word in right:
        matched = positions.get(word, 0)
        diagonal = (((matched & rising) + rising) ^ rising) | matched | falling
        across = falling | (everything & ~(diagonal | rising))
        back = rising & diagonal
        if across & last:
            distance += 1
        if back & last:
            distance -= 1
        across = (across << 1 | 1) & everything
        back = back << 1 & everything
        rising = back | (everything & ~(diagonal | across))
        falling = across & diagonal
    return distance
