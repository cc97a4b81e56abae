"""Claims about the work of redaction, counted and not timed: it grows as the text does."""

import re
import sys
from types import FrameType
from typing import Any

import pytest

from job.config.redaction import RedactionSection
from job.conversations.finders import addresses, everyday, folding, numbers, phones
from job.conversations.redaction import (
    CUT_OFF,
    NUMBERED_NAME,
    PLACEHOLDER,
    Placeholders,
    make_redactor,
)
from tests.conversations.backtracking import steps_of

PIECES = [
    "a", "a.", "@a", "a@a.", "1 ", "1.", "4111 ", "http://", "a:", "+1(4", "9", "[EMAIL_1] @b ",
    "(((1", "1.a", "4 - ", "4/", "415-555-0123 ", "1,", "call 1 ", "DE89370400440532013000",
    "ssn ", "jan 1, ", "1 jan ", "$1", "1 000 ", "1.1.", '"a', "31.01.", "1:1", "1\u00ad",
    "\uff11", "a_1", "EUR 1 ", "\u2026",
]  # fmt: skip
MODULES = (addresses, everyday, folding, numbers, phones)
PATTERNS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(value, re.Pattern) and not name.endswith("_LEAD")  # these read 40 characters
} | {"CUT_OFF": CUT_OFF, "NUMBERED_NAME": NUMBERED_NAME, "PLACEHOLDER": PLACEHOLDER}


# Characters of a text and of one twice as long; the largest pattern is tried on less.
SIZES, SMALL_SIZES = (120, 240), (60, 120)


def grows_too_much(once: int, twice: int) -> bool:
    """What is quadratic takes four times the steps over twice the text."""
    return twice > 2.6 * once + 500


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_takes_steps_as_the_text_grows(name):
    slow = {}
    for piece in PIECES:
        sizes = SMALL_SIZES if name == "everyday.EVERYDAY" else SIZES
        once, twice = (steps_of(PATTERNS[name], piece * (size // len(piece))) for size in sizes)
        if grows_too_much(once, twice):
            slow[piece] = once, twice
    assert not slow


def test_steps_tell_a_quadratic_pattern():
    once, twice = (steps_of(re.compile("a+b"), "a" * size) for size in SMALL_SIZES)
    assert grows_too_much(once, twice)


def calls_of(text: str, region: str) -> int:
    """Return how many functions are called, Python's and C's, while a text is redacted twice."""
    redactor = make_redactor(RedactionSection(phone_region=region))
    assert redactor
    placeholders = Placeholders(redactor)
    placeholders.redact("a@b.com, +1 201-555-0123")
    phones.valid_number.cache_clear()
    calls = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        placeholders.redact(text)
        placeholders.redact_again(text)
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("region", ["US", "DE"])
def test_redaction_calls_functions_as_the_text_grows(region):
    slow = {}
    for piece in PIECES:
        once, twice = (calls_of(piece * (size // len(piece)), region) for size in (300, 600))
        if grows_too_much(once, twice):
            slow[piece] = once, twice
    assert not slow


def test_different_numbers_cost_a_bounded_number_of_calls_each():
    text = " ".join(str(10 + number * 7919 % 989) for number in range(400))
    assert calls_of(text, "US") < 2000 * 400  # twice redacted
