"""Claims about the data that feedback leaves: its rows, what is held out, what is left out."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from job.config.commands import TrainConfig
from job.config.data_sections import ReadingSection
from job.config.load import load_config
from job.config.sections import to_plain
from job.conversations.read import read_strictly
from job.errors import DataError, MissingError
from job.feedback.run import run_feedback
from job.feedback.screen import screen
from job.prompt.encode import Encoder
from job.storage.config_file import read_config
from job.storage.folders import publish_folder
from job.storage.open import list_inputs, open_store
from job.telemetry import recorded_warnings
from job.training.preference_rows import preference_rows
from tests.champions import promote, put_adapter
from tests.feedback.world import conversation, corrected, read_lines, verdict, write_lines
from tests.stand_in import PROMPT, StandInTokenizer

WEEKLY = Path(__file__).parent.parent.parent / "examples" / "weekly"


@pytest.fixture
def world(world, three_nights):
    """A world of its own that reads three nights."""
    shared, _ = three_nights
    return replace(world, read_only=(str(shared.folder / "nights"),))


@pytest.fixture
def lines(world, three_nights):
    """The lines of three nights, all of which are edited."""
    _, found = three_nights
    world.verdicts([verdict(line, edited=corrected(line), by="ann") for line in found])
    return found


def every_row(world, kind):
    return {side: world.rows(kind, side) for side in ("train", "validation", "test")}


def conversations_of(rows):
    return {json.dumps(row["turns"]) for row in rows}


def test_edits_are_references_that_recap_reads_as_conversations(world, lines):
    run_feedback(world.config())
    files = list_inputs([str(world.folder / "out" / "sft" / "train.jsonl")])
    found = read_strictly(files, ReadingSection())
    by_id = {line["id"]: corrected(line) for line in lines}
    assert found
    assert all(each.references == (by_id[each.id],) for each in found)


@pytest.mark.parametrize("kind", ["sft", "pairs", "thumbs"])
def test_prompts_of_the_data_are_those_of_the_summaries_id_by_id(world, three_nights, lines, kind):
    rows = [verdict(line, verdict="down", by="bob") for line in lines]
    rows += [verdict(line, edited=corrected(line), by="ann") for line in lines]
    world.verdicts(rows)
    run_feedback(world.config(split={"test_weeks": 0, "validation_fraction": 0}))
    source = str(three_nights[0].folder / "conversations")
    nights = read_strictly(list_inputs([source]), ReadingSection())
    data = list_inputs([str(world.folder / "out" / kind / "train.jsonl")])
    encoder = Encoder(PROMPT, StandInTokenizer(), 1 << 19)
    wanted = {each.id: encoder.encode(each).ids for each in nights}
    rows = read_strictly(data, ReadingSection(), None if kind == "sft" else kind)
    if kind == "sft":
        found = {each.id: encoder.encode(each).ids for each in rows}
    else:
        encoded = zip(rows, preference_rows(rows, encoder), strict=True)
        found = {each.id: row.prompt_ids for each, row in encoded}
    assert found == wanted


def test_a_pair_prefers_the_edit_to_what_was_shown(world, lines):
    run_feedback(world.config())
    by_id = {line["id"]: line for line in lines}
    pairs = world.rows("pairs", "train")
    assert pairs
    for row in pairs:
        line = by_id[row["id"]]
        assert (row["chosen"], row["rejected"]) == (corrected(line), line["summary"])
        assert row["metadata"]["digest"] == line["digest"]


def test_no_two_sides_share_a_conversation_or_a_test_week(world, lines):
    run_feedback(world.config(split={"validation_fraction": 0.3}))
    sides = every_row(world, "sft")
    weeks = {side: {row["metadata"]["week"] for row in rows} for side, rows in sides.items()}
    found = [conversations_of(rows) for rows in sides.values()]
    assert all(sides.values())
    assert sum(map(len, found)) == len(set.union(*found)) == 60
    assert weeks["test"] == {"2026-W04"}
    assert not weeks["test"] & (weeks["train"] | weeks["validation"])


def test_weekly_trainings_read_only_what_the_weekly_feedback_writes(world, lines):
    def example(path):
        return to_plain(load_config(None, read_config(str(path)), (), {"date": "2026-02-02"}))

    weekly = example(WEEKLY / "feedback.yaml")
    trainings = sorted(set(WEEKLY.glob("*.yaml")) - {WEEKLY / "feedback.yaml"})
    read = {
        (path.name, name)
        for path in trainings
        for name in re.findall(f'"{weekly["output"]}([^"]+)"', json.dumps(example(path)))
    }
    run_feedback(world.config(split=weekly["split"]))
    out = world.folder / "out"
    assert {name for name, _ in read} == {path.name for path in trainings}
    assert not [(name, key) for name, key in read if not (out / key).is_file()]


def test_a_conversation_stays_on_its_side_when_more_data_comes(world, lines):
    split = {"test_weeks": 0, "validation_fraction": 0.3}
    run_feedback(world.config(split=split))
    before = conversations_of(world.rows("sft", "validation"))
    more = world.night("2026-01-26", [conversation(60 + number) for number in range(20)])
    world.verdicts([verdict(line, edited=corrected(line)) for line in more], "more.jsonl")
    run_feedback(world.config(split=split, output=str(world.folder / "later")))
    later = read_lines(world.folder / "later" / "sft" / "validation.jsonl")
    assert before
    assert before <= conversations_of(later)


def test_a_conversation_that_the_test_week_nearly_repeats_is_left_out(world, lines):
    again = conversation(0) | {"id": "again"}
    again["turns"][1]["text"] += " today"
    (line,) = world.night("2026-01-26", [again])
    world.verdicts([verdict(line, edited=corrected(lines[0]))], "more.jsonl")
    numbers = run_feedback(world.config())
    assert numbers["test_weeks"] == ["2026-W05"]
    assert numbers["left_out"]["in_test"] == 1
    ids = {row["id"] for rows in every_row(world, "sft").values() for row in rows}
    assert "c0" not in ids


def test_the_test_is_the_newest_week_with_edits(world, lines):
    (line,) = world.night("2026-01-26", [conversation(70)])
    world.verdicts([verdict(line, verdict="up")], "more.jsonl")
    numbers = run_feedback(world.config())
    assert numbers["test_weeks"] == ["2026-W04"]
    assert len(world.rows("pairs", "test")) == 20
    assert "needs 40 conversations, and the test has 20: wait" in screen(numbers)


def test_without_edits_the_test_is_the_newest_week(world, lines):
    world.verdicts([verdict(line, verdict="up") for line in lines])
    numbers = run_feedback(world.config())
    assert numbers["test_weeks"] == ["2026-W04"]
    assert numbers["data"]["thumbs"]["test"] == 20


def test_a_report_without_data_says_so(world, lines):
    rows = [verdict(lines[0], verdict=thumb, by=thumb) for thumb in ("up", "down")]
    world.verdicts(rows)
    with recorded_warnings() as warnings:
        text = screen(run_feedback(world.config()))
    assert "No data was made: no summary has an edit or a thumb that counts." in text
    assert any("No data was made" in message for message, _ in warnings)


def test_rows_without_an_agent_are_one_opinion(world, lines):
    rows = [verdict(line, verdict="up") for line in lines[:20]]
    rows += [verdict(line, edited=corrected(line)) for line in lines[:20]]
    world.verdicts(rows)
    numbers = run_feedback(world.config(split={"validation_fraction": 0}))
    assert numbers["conflicts"]["conflicts"] == 0
    assert (numbers["opinions"], numbers["bias"]["unnamed_opinions"]) == (20, 20)
    assert "summaries were judged, by unnamed agents." in screen(numbers)
    assert numbers["data"]["pairs"]["train"] == 20


def test_one_week_alone_has_no_test_set(world):
    lines = world.night("2026-02-02", [conversation(number) for number in range(70, 74)])
    world.verdicts([verdict(line, verdict="up") for line in lines])
    numbers = run_feedback(world.config())
    assert numbers["test_weeks"] == []
    assert numbers["data"]["thumbs"]["test"] == 0


def test_agents_who_disagree_give_no_data(world, lines):
    rows = [
        verdict(lines[0], verdict="up", by="ann"),
        verdict(lines[0], verdict="down", by="bob"),
        verdict(lines[1], verdict="up", by="ann"),
        verdict(lines[1], edited=corrected(lines[1]), by="bob"),
        verdict(lines[2], verdict="down", by="ann"),
        verdict(lines[2], edited=corrected(lines[2]), by="bob"),
    ]
    world.verdicts(rows)
    numbers = run_feedback(world.config(split={"validation_fraction": 0}))
    assert numbers["conflicts"]["conflicts"] == 2
    assert numbers["left_out"]["conflict"] == 2
    ids = {row["id"] for kind in ("sft", "thumbs") for row in world.rows(kind, "train")}
    assert ids == {"c2"}


def test_a_thumb_and_an_edit_of_one_agent_are_one_opinion(world, lines):
    rows = [
        verdict(lines[0], verdict="down", by="ann", at="2026-01-06T08:00:00Z"),
        verdict(lines[0], edited="First try.", by="ann", at="2026-01-06T08:01:00Z"),
        verdict(lines[0], edited=corrected(lines[0]), by="ann", at="2026-01-06T08:02:00Z"),
    ]
    world.verdicts(rows)
    numbers = run_feedback(world.config())
    assert (numbers["opinions"], numbers["joined_rows"]) == (1, 2)
    assert [each["reason"] for each in numbers["unmatched"]] == ["superseded"]
    assert world.rows("sft", "train")[0]["summaries"] == [corrected(lines[0])]


def test_a_thumb_up_that_was_edited_gives_no_thumb(world, lines):
    world.verdicts([verdict(lines[0], verdict="up", edited=corrected(lines[0]), by="ann")])
    numbers = run_feedback(world.config())
    counts = {kind: sum(by_side.values()) for kind, by_side in numbers["data"].items()}
    assert counts == {"sft": 1, "pairs": 1, "thumbs": 0}


def test_two_edits_are_two_references_and_two_pairs(world, lines):
    rows = [
        verdict(lines[0], edited=corrected(lines[0]), by="ann"),
        verdict(lines[0], edited="Another text.", by="bob"),
    ]
    world.verdicts(rows)
    numbers = run_feedback(world.config())
    assert numbers["edited_differently"] == 1
    assert world.rows("sft", "train")[0]["summaries"] == [corrected(lines[0]), "Another text."]
    assert [row["id"] for row in world.rows("pairs", "train")] == ["c0", "c0-2"]


def test_an_edit_that_changes_only_space_is_none(world, lines):
    world.verdicts([verdict(lines[0], edited=f" {lines[0]['summary']}\n", by="ann")])
    numbers = run_feedback(world.config())
    assert (numbers["unchanged_edits"], numbers["all"]["edited"]) == (1, 0)
    assert not world.rows("pairs", "train")


def test_files_that_moved_are_found_by_content(world):
    lines = world.night("2026-02-02", [conversation(number) for number in range(70, 76)])
    world.verdicts([verdict(line, verdict="up") for line in lines])
    (world.folder / "conversations").rename(world.folder / "archive")
    with pytest.raises(DataError, match="no_conversation: 6"):
        run_feedback(world.config())
    numbers = run_feedback(world.config(conversations_at=str(world.folder / "archive")))
    assert numbers["joined_rows"] == 6


def test_redacted_nights_leave_no_personal_data(world):
    record = conversation(1)
    record["turns"][0]["text"] += " and my mail is jane@example.com"
    (line,) = world.night("2026-02-02", [record], redaction={})
    edited = "The customer jane@example.com has a wrong size and asks bob@example.com."
    world.verdicts([verdict(line, edited=edited, reason="told jane@example.com", by="ann")])
    run_feedback(world.config())
    (row,) = world.rows("sft", "train")
    assert "my mail is [EMAIL_1]" in row["turns"][0]["text"]
    (reference,) = row["summaries"]
    assert reference == "The customer [EMAIL_1] has a wrong size and asks [EMAIL_2]."
    for path in (world.folder / "out").rglob("*.*"):
        assert "@example.com" not in path.read_text()


# What evaluations use


def test_conversations_of_evaluation_sets_are_left_out_exact_and_near(world, lines):
    exact = conversation(3) | {"id": "other name"}
    near = conversation(25) | {"id": "near"}
    near["turns"][1]["text"] = near["turns"][1]["text"].replace("word25x7 ", "")
    test = write_lines(world.folder / "test.jsonl", [exact, near, conversation(999)])
    numbers = run_feedback(world.config(evaluation_sets=str(test)))
    assert numbers["leaks"] == [{"set": "evaluation_sets", "exact": 1, "near": 1}]
    assert numbers["left_out"]["in_evaluation"] == 2
    for kind in ("sft", "pairs"):
        ids = {row["id"] for rows in every_row(world, kind).values() for row in rows}
        assert len(ids) == 58
        assert not ids & {"c3", "c25"}


def trained_champion(world, publish=None, **data):
    """Publish an adapter with the record of its training beside it; return its pointer."""
    run = world.folder / "runs" / "support"
    put_adapter(str(run / "adapter"), world.folder / "work")
    content = {
        "run": "support",
        "model": {"base": "org/base"},
        "output": str(world.folder / "runs"),
        "data": data,
        "publish": publish or {},
    }
    config = to_plain(TrainConfig.model_validate(content))
    (run / "run.json").write_text(json.dumps({"run": "support", "config": config}))
    pointer = str(world.folder / "champion.json")
    promote(pointer, str(run / "adapter"))
    return pointer


def test_what_a_champion_was_validated_on_is_read_from_its_record(world, lines):
    train = write_lines(world.folder / "t.jsonl", [conversation(each) for each in range(900, 905)])
    held = write_lines(world.folder / "v.jsonl", [conversation(7), conversation(8)])
    champion = trained_champion(world, train=str(train), validation=str(held))
    numbers = run_feedback(world.config(champion=champion))
    assert numbers["leaks"] == [{"set": "validation of training support", "exact": 2, "near": 0}]


def test_pairs_that_judged_a_champion_are_left_out(world, lines):
    held = write_lines(world.folder / "v.jsonl", [{"talk": "Agent: Hi", "id": "v", "note": "x"}])
    rows = [conversation(each) | {"chosen": "a", "rejected": "b"} for each in (4, 5)]
    pairs = write_lines(world.folder / "pairs.jsonl", rows)
    publish = {"gate": {}, "pairs": {"input": str(pairs)}}
    columns = {"conversation": "talk", "summary": "note"}
    champion = trained_champion(
        world, publish, train=str(held), validation=str(held), columns=columns
    )
    numbers = run_feedback(world.config(champion=champion))
    assert numbers["leaks"] == [
        {"set": "held-out pairs of training support", "exact": 2, "near": 0}
    ]


def test_a_share_that_a_training_held_out_is_known_again(world, lines):
    train = write_lines(world.folder / "t.jsonl", [conversation(each) for each in range(20)])
    champion = trained_champion(world, train=str(train), validation_fraction=0.4)
    numbers = run_feedback(world.config(champion=champion))
    (known,) = numbers["evaluation_sets"]
    assert 0 < known["conversations"] < 20
    assert numbers["left_out"]["in_evaluation"] == known["conversations"]


def test_a_test_set_of_a_training_hides_no_share_that_it_held_out(world, lines):
    train = write_lines(world.folder / "t.jsonl", [conversation(each) for each in range(20)])
    test = write_lines(world.folder / "test.jsonl", [conversation(each) for each in (30, 31)])
    data = {"train": str(train), "test": str(test), "validation_fraction": 0.4}
    numbers = run_feedback(world.config(champion=trained_champion(world, **data)))
    of_validation, of_test = numbers["leaks"]
    assert of_test == {"set": "test of training support", "exact": 2, "near": 0}
    assert of_validation["set"] == "validation of training support"
    assert of_validation["exact"] > 2


def test_what_let_a_champion_in_by_an_evaluation_is_read_from_its_manifest(world, lines):
    test = write_lines(world.folder / "test.jsonl", [conversation(11)])
    facts = {"kind": "evaluation", "run": "weekly", "data": to_plain(ReadingSection())}
    folder = world.folder / "made"
    folder.mkdir()
    (folder / "evaluation.json").write_text("{}")
    judged = str(world.folder / "judged")
    rows = [conversation(12) | {"chosen": "a", "rejected": "b"}]
    pairs = write_lines(world.folder / "pairs.jsonl", rows)
    inputs = {"input": [str(test)], "held-out pairs": [str(pairs)]}
    publish_folder(folder, open_store(judged), "", facts | {"inputs": inputs})
    put_adapter(str(world.folder / "elsewhere"), world.folder / "work")
    pointer = str(world.folder / "champion.json")
    promote(pointer, str(world.folder / "elsewhere"), source=f"{judged}/evaluation.json")
    numbers = run_feedback(world.config(champion=pointer))
    assert numbers["leaks"] == [
        {"set": "held-out pairs of evaluation weekly", "exact": 1, "near": 0},
        {"set": "input of evaluation weekly", "exact": 1, "near": 0},
    ]


def test_a_champion_without_records_is_an_error_with_a_remedy(world, lines):
    put_adapter(str(world.folder / "elsewhere"), world.folder / "work")
    with pytest.raises(MissingError, match=r"name the conversations .* by evaluation_sets"):
        run_feedback(world.config(champion=str(world.folder / "elsewhere")))


def test_a_job_that_runs_again_after_a_promotion_is_done(world, lines):
    held = write_lines(world.folder / "v.jsonl", [conversation(7)])
    champion = trained_champion(world, train=str(held), validation=str(held))
    first = run_feedback(world.config(champion=champion))
    put_adapter(str(world.folder / "next"), world.folder / "work")
    promote(champion, str(world.folder / "next"))
    assert run_feedback(world.config(champion=champion)) == first
