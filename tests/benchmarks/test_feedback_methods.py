"""Claims about the comparison of methods that learn from feedback."""

import random
from pathlib import Path

from benchmarks.feedback_methods import (
    GUARDS,
    arrange,
    habit,
    read,
    refused_by_default_guards,
    table,
    verdict,
    write,
)
from benchmarks.feedback_worth import GREETING

COUNT = 60
LIKED = "A flight is late. The reference is AX1003."


def record(name: str = "c") -> dict:
    """Return a conversation whose customer gives one number."""
    turns = [{"role": "customer", "text": "It is about AX1003."}]
    return {"id": name, "turns": turns, "summaries": ["A flight is late."]}


def line(summary: str) -> dict:
    """Return the line of a night."""
    return {"id": "c", "digest": "d", "summary": summary}


def test_the_champion_learns_two_habits():
    texts = [habit(record(f"c-{number}")) for number in range(COUNT)]
    assert set(texts) == {LIKED, GREETING + "A flight is late."}
    assert 40 <= texts.count(GREETING + "A flight is late.") <= 56


def test_agents_leave_a_summary_alone_that_names_the_number():
    assert verdict(record(), line(LIKED)) == {"id": "c", "digest": "d", "verdict": "up"}


def test_edits_cut_the_greeting_and_name_the_number():
    for shown in (
        GREETING + "A flight is late.",
        "A flight is late.",
        "A flight is late. The reference is AX9.",
        GREETING + LIKED,
    ):
        found = verdict(record(), line(shown))
        assert (found["verdict"], found["edited"]) == ("down", LIKED)


def arranged(folder: Path, coin: random.Random | None) -> dict[str, list[dict]]:
    """Return the rows that methods learn from, of pairs that are all alike."""
    own = {"id": "c", "chosen": "edit", "rejected": "shown"}
    for side in ("train", "validation", "test"):
        write(folder / "given" / f"{side}.jsonl", [own] * COUNT)
    arrange(folder / "given", folder / "arranged", coin)
    kinds = ("pairs", "sft", "thumbs")
    return {kind: read(folder / "arranged" / kind / "train.jsonl") for kind in kinds}


def test_edits_pairs_and_thumbs_are_the_same_verdicts(tmp_path: Path):
    rows = arranged(tmp_path, None)
    assert rows["pairs"] == [{"id": "c", "chosen": "edit", "rejected": "shown"}] * COUNT
    assert rows["sft"] == [{"id": "c", "summaries": ["edit"]}] * COUNT
    up = {"id": "c", "completion": "edit", "label": True}
    down = {"id": "c", "completion": "shown", "label": False}
    assert rows["thumbs"] == [up, down] * (COUNT // 2)


def test_a_coin_exchanges_half_of_the_verdicts(tmp_path: Path):
    rows = arranged(tmp_path, random.Random(0))
    pairs = rows["pairs"]
    assert all({pair["chosen"], pair["rejected"]} == {"edit", "shown"} for pair in pairs)
    assert 20 <= sum(pair["chosen"] == "shown" for pair in pairs) <= 40
    assert [edit["summaries"] for edit in rows["sft"]] == [[pair["chosen"]] for pair in pairs]
    for thumb, pair in zip(rows["thumbs"], pairs, strict=True):
        assert thumb["completion"] == pair["chosen" if thumb["label"] else "rejected"]


def test_the_table_has_an_interval_for_each_figure():
    measured = {"of": 60, "greeted": 0, "named": 30, "content": [0.5, 0.4, 0.6]}
    measured["conversations"] = 77
    line = {"way": "KTO", "verdicts": "shuffled", "rate": 0.001, "steps": 24, "seed": 42}
    line |= measured | {"win_rate": [0.75, 0.7, 0.8], "passes": False, "failed": ["win rate"]}
    line |= {"default_guards": ["cut"]}
    cells = "0% [0%, 6%] | 50% [38%, 62%] | 0.50 [0.40, 0.60]"
    won = "0.75 [0.70, 0.80] | no | win rate | cut"
    wanted = f"| 77 | shuffled | KTO | 0.001 | 24 | 42 | {cells} | {won} |"
    assert table([line])[-1] == wanted
    champion = table([measured | {"way": "champion"}])[-1]
    assert champion == f"| 77 |  | champion |  |  |  | {cells} |  |  |  |  |"


def test_a_file_that_has_its_rows_stays_as_it_is(tmp_path: Path):
    write(tmp_path / "night.jsonl", [record()])
    before = (tmp_path / "night.jsonl").stat().st_mtime_ns
    write(tmp_path / "night.jsonl", [record()])
    assert (tmp_path / "night.jsonl").stat().st_mtime_ns == before
    write(tmp_path / "night.jsonl", [record("d")])
    assert read(tmp_path / "night.jsonl") == [record("d")]


def test_default_guards_count_by_what_the_champion_left():
    used = 0.015  # by which the champion is worse than people
    checks = [
        {"rule": "win rate", "metric": "cut", "value": 0.0, "margin": 0.5},
        {"rule": "guard", "metric": "cut", "value": -0.01, "margin": GUARDS["cut"] - used},
        {"rule": "guard", "metric": "copied", "value": -0.2, "margin": GUARDS["copied"]},
        {"rule": "guard", "metric": "empty", "value": None, "margin": GUARDS["empty"]},
    ]
    assert refused_by_default_guards(checks) == ["cut"], "0.02 - 0.015 is less than 0.01"
    checks[1]["value"] = -0.005
    assert refused_by_default_guards(checks) == []
