"""The steps that a backtracking engine takes over a text: what a clock would only hint at."""

import re
from collections.abc import Callable, Sequence
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

Rest = Callable[[int], bool]
CATEGORIES = {
    op.CATEGORY_DIGIT: str.isdecimal,
    op.CATEGORY_NOT_DIGIT: lambda one: not one.isdecimal(),
    op.CATEGORY_SPACE: str.isspace,
    op.CATEGORY_NOT_SPACE: lambda one: not one.isspace(),
    op.CATEGORY_WORD: lambda one: _is_word(one),
    op.CATEGORY_NOT_WORD: lambda one: not _is_word(one),
}


def steps_of(pattern: "re.Pattern[str]", text: str) -> int:
    """Return how many nodes of the pattern are tried while all its matches in a text are found."""
    return _Engine(pattern, text).search()


class _Engine:
    """Tries a pattern as Python's own engine does, without its shortcuts."""

    def __init__(self, pattern: "re.Pattern[str]", text: str) -> None:
        self.nodes = list(_parser.parse(pattern.pattern, pattern.flags))
        self.folds = bool(pattern.flags & re.IGNORECASE)
        self.text, self.steps = text, 0

    def search(self) -> int:
        place = 0
        while place <= len(self.text):
            end = self.once(self.nodes, place)
            place = place + 1 if end is None else max(end, place + 1)
        return self.steps

    def run(self, nodes: Sequence[Any], place: int, rest: Rest) -> bool:
        if not nodes:
            return rest(place)
        self.steps += 1
        (kind, value), later = nodes[0], nodes[1:]
        match kind:
            case op.BRANCH:
                return any(self.run([*one, *later], place, rest) for one in value[1])
            case op.SUBPATTERN:
                return self.run([*value[3], *later], place, rest)
            case op.MAX_REPEAT | op.MIN_REPEAT:
                is_lazy = kind == op.MIN_REPEAT
                return self.repeat(value, place, 0, is_lazy, lambda end: self.run(later, end, rest))
            case op.POSSESSIVE_REPEAT:
                low, high, inner = value
                count = 0
                while count < high and (end := self.once(inner, place)) is not None and end > place:
                    place, count = end, count + 1
                return count >= low and self.run(later, place, rest)
            case op.ATOMIC_GROUP:
                end = self.once(value, place)
                return end is not None and self.run(later, end, rest)
            case op.ASSERT | op.ASSERT_NOT:
                is_wanted = self.looks(value, place) == (kind == op.ASSERT)
                return is_wanted and self.run(later, place, rest)
            case op.AT:
                return self.is_at(value, place) and self.run(later, place, rest)
        return self.is_one(kind, value, place) and self.run(later, place + 1, rest)

    def repeat(self, value: Any, place: int, count: int, is_lazy: bool, rest: Rest) -> bool:
        low, high, inner = value

        def again(end: int) -> bool:
            return end > place and self.repeat(value, end, count + 1, is_lazy, rest)

        def more() -> bool:
            return count < high and self.run(list(inner), place, again)

        if count < low:
            return more()
        return (rest(place) or more()) if is_lazy else (more() or rest(place))

    def once(self, nodes: Any, place: int) -> int | None:
        ends: list[int] = []

        def note(end: int) -> bool:
            ends.append(end)
            return True

        return ends[0] if self.run(list(nodes), place, note) else None

    def looks(self, value: Any, place: int) -> bool:
        direction, inner = value
        start = place if direction > 0 else place - inner.getwidth()[0]
        return start >= 0 and self.once(inner, start) is not None

    def is_at(self, value: Any, place: int) -> bool:
        if value in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
            return place == 0
        if value in (op.AT_END, op.AT_END_STRING):
            return place == len(self.text)
        before, after = self.text[max(0, place - 1) : place], self.text[place : place + 1]
        return _is_word(before) != _is_word(after)

    def is_one(self, kind: Any, value: Any, place: int) -> bool:
        if place >= len(self.text):
            return False
        character = self.text[place]
        forms = {character, character.lower(), character.upper()} if self.folds else {character}
        if kind == op.IN:
            is_negated = value[0][0] == op.NEGATE
            return is_negated != any(_is_in(item, form) for item in value for form in forms)
        if kind == op.ANY:
            return character != "\n"
        return (chr(value) in forms) == (kind == op.LITERAL)


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _is_in(item: Any, character: str) -> bool:
    kind, value = item
    if kind == op.CATEGORY:
        return CATEGORIES[value](character)
    if kind == op.RANGE:
        return value[0] <= ord(character) <= value[1]
    return kind == op.LITERAL and value == ord(character)
