"""Claims about the comparison of methods that learn from feedback."""

import random
from pathlib import Path

import pytest

from benchmarks.feedback_methods import (
    Beginning,
    against_champion,
    passes,
    rows_of,
    table,
)
from benchmarks.feedback_worth import GREETING, Trained

COUNT = 60


def record(number: int) -> dict:
    """Return a conversation whose customer gives one number."""
    turns = [{"role": "customer", "text": f"It is about AX{1000 + number}."}]
    return {"id": f"c{number}", "turns": turns, "summaries": [f"A flight {number} is late."]}


def texts(row: dict) -> list[str]:
    """Return both texts of a pair."""
    return [row["chosen"], row["rejected"]]


@pytest.fixture
def beginning() -> Beginning:
    """Return a champion that greets, and an adapter that does not, without a training."""
    records = [record(number) for number in range(COUNT)]
    plain = {each["id"]: each["summaries"][0] for each in records}
    greeted = {name: GREETING + text for name, text in plain.items()}
    champion, former = (Trained(Path("a"), own, 1, 1.0) for own in (greeted, plain))
    return Beginning(champion, former, records, records)


def test_edits_cut_the_greeting_and_add_the_number(beginning):
    row = rows_of(beginning, "pairs", None)[3]
    assert row["chosen"] == "A flight 3 is late. Number AX1003."
    assert row["rejected"] == "Hello team. A flight 3 is late."
    assert rows_of(beginning, "sft", None)[3]["summaries"] == [row["chosen"]]


def test_thumbs_are_up_where_nobody_is_greeted(beginning):
    rows = rows_of(beginning, "thumbs", None)
    assert [row["label"] for row in rows] == [True, False] * (COUNT // 2)
    assert all(row["completion"].startswith("Hello") != row["label"] for row in rows)


def test_a_coin_exchanges_the_texts_of_half_of_the_pairs(beginning):
    given = rows_of(beginning, "pairs", None)
    rows = rows_of(beginning, "pairs", random.Random(0))
    exchanged = [row["chosen"] == own["rejected"] for row, own in zip(rows, given, strict=True)]
    assert 20 <= sum(exchanged) <= 40
    assert all(
        sorted(texts(row)) == sorted(texts(own)) for row, own in zip(rows, given, strict=True)
    )


def test_agents_verdicts_let_their_edits_pass_and_a_coins_do_not(beginning):
    wanted = [row["chosen"] for row in rows_of(beginning, "pairs", None)]
    assert passes(against_champion(wanted, beginning, None))
    by_coin = against_champion(wanted, beginning, random.Random(0))
    assert by_coin.wins + by_coin.losses == COUNT
    assert not passes(by_coin)


def test_the_table_has_an_interval_for_each_figure():
    line = {"way": "KTO", "shuffled": True, "rate": 0.001, "steps": 24, "of": 60}
    line |= {"greeted": 0, "named": 30, "rouge_l": [0.5, 0.4, 0.6], "words": [9, 8, 10.04]}
    line |= {"win_rate": [0.75, 0.7, 0.8], "passes": True}
    cells = "0% [0%, 6%] | 50% [38%, 62%] | 0.50 [0.40, 0.60] | 9.0 [8.0, 10.0]"
    wanted = f"| shuffled | KTO | 0.001 | 24 | {cells} | 0.75 [0.70, 0.80] | yes |"
    assert table([line])[-1] == wanted
