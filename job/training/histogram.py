"""Draw numbers with characters: how many are in ranges that double."""

from collections.abc import Mapping

WIDTH = 24  # of the longest bar, in characters


def histogram(counts: Mapping[int, int]) -> list[str]:
    """Return a line for each range of numbers, from the smallest to the largest that occurs.

    `counts` has how often each number occurs. Ranges double: 1, 2, 3 to 4, 5 to 8, and so on.
    """
    ranges = ranges_of(counts)
    if not ranges:
        return []
    largest = max(ranges.values())
    names = [f"{low:,} to {high:,}" if low < high else f"{low:,}" for low, high in ranges]
    width = max(map(len, names))
    lines = []
    for name, count in zip(names, ranges.values(), strict=True):
        bar = "█" * round(WIDTH * count / largest) or ("▏" if count else "")
        lines.append(f"{name:>{width}}  {bar} {count:,}")
    return lines


def ranges_of(counts: Mapping[int, int]) -> dict[tuple[int, int], int]:
    """Return the numbers by range, (lowest, highest); those without any between two have 0."""
    found: dict[int, int] = {}
    for number, count in counts.items():
        power = max(number - 1, 0).bit_length()
        found[power] = found.get(power, 0) + count
    if not found:
        return {}
    ranges = {}
    for power in range(min(found), max(found) + 1):
        low = 2 ** (power - 1) + 1 if power else min(counts)
        ranges[min(low, 2**power), 2**power] = found.get(power, 0)
    return ranges


def quantile(counts: Mapping[int, int], share: float) -> int:
    """Return the smallest number that at least this share of the numbers does not exceed."""
    total = sum(counts.values())
    seen = 0
    for number in sorted(counts):
        seen += counts[number]
        if seen >= share * total:
            return number
    return 0


def summary(counts: Mapping[int, int]) -> str:
    """Return median, 95th percentile and largest of the numbers, for people."""
    half = quantile(counts, 0.5)
    most = quantile(counts, 0.95)
    return f"half have at most {half:,}, 95% at most {most:,}, the longest {max(counts):,}"
