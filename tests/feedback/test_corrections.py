"""Claims about corrections: their distance, and what kinds they are."""

import random

import pytest

from job.conversations.record import Conversation, Source, Turn
from job.evaluation.distances import edit_distance
from job.feedback.corrections import KINDS, MEANING, correction_of, usual_words

TALK = Conversation(
    "c1",
    (
        Turn("customer", "This is Maria Lopez, order 4711 is late. I paid 25 euros."),
        Turn("agent", "Sorry Maria, Peter will call you. Write to help@shop.com"),
    ),
    Source("c.jsonl", 1),
)


def by_table(left: list[str], right: list[str]) -> int:
    """The distance by its definition."""
    above = list(range(len(right) + 1))
    for row, word in enumerate(left, 1):
        here = [row]
        for column, other in enumerate(right, 1):
            here.append(min(above[column] + 1, here[-1] + 1, above[column - 1] + (word != other)))
        above = here
    return above[-1]


def test_the_distance_is_that_of_its_definition():
    draw = random.Random(0)
    for _ in range(500):
        left, right = ([draw.choice("abcd") for _ in range(draw.randrange(90))] for _ in range(2))
        assert edit_distance(left, right) == by_table(left, right), (left, right)


SHOWN = "Here, Maria's order is late and the agent will help her with it soon."


@pytest.mark.parametrize(
    ("shown", "edited", "kinds"),
    [
        (SHOWN, SHOWN.replace("is late", "4711 is late"), ["numbers_added"]),
        (SHOWN, SHOWN.replace("the agent", "Peter"), ["names_added"]),
        (SHOWN, SHOWN.replace("Maria's", "her"), ["names_removed"]),
        (SHOWN, SHOWN.replace("is late", "is late, she writes to help@shop.com"),
         ["contacts_added", "lengthened"]),
        (SHOWN, SHOWN.lower(), ["form_only"]),
        (SHOWN, "The order of Maria is late.", ["shortened"]),
        (SHOWN, SHOWN.replace("soon", "quickly"), ["wording"]),
        ("The order 999 of Maria is late today.", "The order of Maria is late today.",
         ["inventions_removed", "numbers_removed"]),
        ("Hello and welcome to this summary.", "Parcel delayed; refund agreed upon.",
         ["rewritten"]),
    ],
)  # fmt: skip
def test_a_correction_has_the_kinds_of_what_changed(shown, edited, kinds):
    found = correction_of(shown, edited, TALK)
    assert set(kinds) <= set(found.kinds)
    if kinds[0] in ("form_only", "wording", "numbers_added", "names_added"):
        assert list(found.kinds) == kinds


def test_one_number_in_two_notations_is_no_change():
    found = correction_of("She paid 25 euros for it.", "She paid 25.00 euros for it.", TALK)
    assert "numbers_added" not in found.kinds


def test_every_kind_has_a_meaning():
    assert MEANING.keys() == set(KINDS)


def test_words_of_fewer_than_three_corrections_are_not_listed():
    sets = [{"order", "lopez"}, {"order", "lopez"}, {"order"}]
    assert usual_words(sets) == [("order", 3)]
