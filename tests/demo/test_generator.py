"""The demo's conversations: repeatable, well formed, held out by conversation and by wording."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from examples.demo.make.generator import SEED, generate, write_examples
from examples.demo.make.wording import load_phrases

EXAMPLES = Path(__file__).parents[2] / "examples" / "demo"
FILES = ("train.jsonl", "validation.jsonl", "heldout.jsonl", "conversations.jsonl")


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines()]


def wordings(kind: str) -> set[str]:
    """Collect every phrase of one wording from the phrase file."""
    phrases = load_phrases()
    issues = [issue for domain in phrases.domains.values() for issue in domain["issues"].values()]
    found = [
        *phrases.tried[kind],
        *(phrase for talk in phrases.talk[kind].values() for phrase in talk),
    ]
    found += [phrase for part in [*issues, *phrases.outcomes.values()] for phrase in part[kind]]
    return set(found)


def test_same_seed_gives_the_same_records_and_another_seed_others() -> None:
    first = json.dumps(list(generate(50, 3, "train")))
    assert first == json.dumps(list(generate(50, 3, "train")))
    assert first != json.dumps(list(generate(50, 4, "train")))


def test_the_files_of_the_repository_are_what_the_generator_writes(tmp_path: Path) -> None:
    write_examples(tmp_path, SEED)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (EXAMPLES / name).read_bytes(), name
    assert sum((EXAMPLES / name).stat().st_size for name in FILES) < 2_500_000


@pytest.mark.parametrize("wording", ["train", "heldout"])
def test_records_are_well_formed(wording: Any) -> None:
    for row in generate(300, 5, wording):
        assert list(row) == ["id", "turns", "summaries", "metadata"]
        assert 4 <= len(row["turns"]) <= 12
        roles = [turn["role"] for turn in row["turns"]]
        assert set(roles) == {"customer", "agent"}
        assert all(one != two for one, two in pairwise(roles))
        texts = [turn["text"] for turn in row["turns"]] + row["summaries"]
        assert all(text and not set(text) & set("{}()|\n") for text in texts)
        assert 1 <= len(row["summaries"]) <= 2


def test_conversations_differ_in_domain_opening_and_ending() -> None:
    rows = list(generate(300, 5, "train"))
    assert {row["metadata"]["domain"] for row in rows} == set(load_phrases().domains)
    for place in (0, -1):
        assert {row["turns"][place]["role"] for row in rows} == {"customer", "agent"}
    assert len({summary for row in rows for summary in row["summaries"]}) > 400


def test_heldout_phrases_and_names_are_disjoint_from_train() -> None:
    assert not wordings("train") & wordings("heldout")
    values = load_phrases().values
    for slot, pool in values["train"].items():
        assert not set(pool) & set(values["heldout"][slot]), slot


def test_no_long_turn_of_heldout_is_ever_said_in_train() -> None:
    said = {
        wording: {turn["text"] for row in generate(1500, 11, wording) for turn in row["turns"]}
        for wording in ("train", "heldout")
    }
    shared = {text for text in said["train"] & said["heldout"] if len(text.split()) > 3}
    assert not shared


def test_no_id_and_no_conversation_is_in_two_files() -> None:
    rows = [row for name in FILES for row in rows_of(name)]
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({json.dumps(row["turns"]) for row in rows}) == len(rows)
    assert not any("summaries" in row for row in rows_of("conversations.jsonl"))
