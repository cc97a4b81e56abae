"""The result of a finder."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """A stretch of text that holds one value.

    `value` is the same wherever the same thing is written, in whatever way.
    """

    start: int
    end: int
    kind: str
    value: str


Finder = Callable[[str], Iterator[Found]]


def ascii_digits(digits: str) -> str:
    """Return digits of any script as 0 to 9."""
    return digits if digits.isascii() else "".join(str(int(digit)) for digit in digits)
