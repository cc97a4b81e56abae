"""Which part of a long conversation fits: turns from both ends, and where a turn is cut.

Counts sizes, in whatever unit, and knows nothing of tokenizers.
"""


def cut(text: str, position: int) -> tuple[str, str]:
    """Cut at the last space in the half before `position`, or at `position` if there is none."""
    space = text.rfind(" ", position // 2, position + 1)
    if space > 0:
        position = space
    first = text[:position]
    return first.rstrip() or first, text[position:].lstrip()


def count_fitting_ends(sizes: list[int], room: int) -> tuple[int, int]:
    """Return how many turns of the beginning and of the end fit, taken in turn from both sides.

    At least one of each, if there are two.
    """
    head = tail = used = 0
    while head + tail < len(sizes):
        from_head = head <= tail
        size = sizes[head] if from_head else sizes[len(sizes) - 1 - tail]
        if used + size > room and head + tail >= 2:
            break
        used += size
        if from_head:
            head += 1
        else:
            tail += 1
    return head, tail
