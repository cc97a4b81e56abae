"""Claims about what a plan finds in the data, and that the training then reports the same."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.errors import DataError, ExitCode
from job.preflight.checks import Check, Plan
from job.preflight.training import plan_training
from job.storage.local import LocalStore
from job.training.histogram import histogram, quantile, ranges_of
from tests.training.conftest import records, write_jsonl

LONG = [f"w{number}" for number in range(40)]


@pytest.fixture
def training(tmp_path: Path, base_folder: Path, places: Path) -> Any:
    """A config with these conversations to train on, and to validate on."""

    def make(lines: list[dict[str, Any]], others: Any = None, **keys: Any) -> TrainConfig:
        others = records(4, first=100) if others is None else others
        data = {
            "train": str(write_jsonl(tmp_path / "train.jsonl", lines)),
            "validation": str(write_jsonl(tmp_path / "validation.jsonl", others)),
        }
        content: dict[str, Any] = {
            "run": "r",
            "model": {"base": str(base_folder)},
            "data": data,
            "output": f"{tmp_path}/runs",
            "lora": {"r": 4, "alpha": 8},
            "training": {"max_tokens": 400, "batch_size": 2, "optimizer": "adamw_torch"},
            "generation": {"max_new_tokens": 64},
        }
        for name, value in keys.items():
            content[name] = content.get(name, {}) | value
        return TrainConfig.model_validate(content)

    return make


def check_of(found: Plan, name: str) -> Check:
    (check,) = [each for each in found.checks if each.name == name]
    return check


def spoken(number: int, words: list[str], *summaries: str) -> dict[str, Any]:
    half = len(words) // 2
    turns = [
        {"role": "customer", "text": " ".join(words[:half])},
        {"role": "agent", "text": " ".join(words[half:])},
    ]
    return {
        "id": f"s{number}",
        "turns": turns,
        "summaries": list(summaries) or ["A summary of it."],
    }


def test_a_leak_with_one_word_changed_is_found(training):
    leaked = spoken(1, [*LONG[:30], "other", *LONG[31:]])
    found = plan_training(training([*records(8), spoken(0, LONG)], [*records(4, 100), leaked]))
    assert found.error is None
    assert "s1 of validation repeats s0 of train (76% alike)" in check_of(found, "contents").found
    assert check_of(found, "data").facts["overlapping"] == 1
    (leak,) = check_of(found, "contents").facts["leaks"]
    assert (leak["train"], leak["validation"]) == ("s0", "s1")


def test_repeats_within_a_split_are_counted_and_named(training):
    near = spoken(2, [*LONG[:30], "other", *LONG[31:]])
    lines = [*records(8), spoken(0, LONG), spoken(1, LONG), near]
    contents = check_of(plan_training(training(lines)), "contents")
    assert contents.error is None
    assert "1 conversation with the words of an earlier one, 1 nearly" in contents.found
    assert "s1 repeats s0; s2 repeats s0" in contents.found
    facts = contents.facts["train"]
    assert (facts["exact_repeats"], facts["near_repeats"]) == (1, 1)

    ended = plan_training(training(lines, limits={"max_repeated_fraction": 0.1}))
    assert ended.error is not None
    assert ended.error.exit_code == ExitCode.DATA
    assert "2 of 11 conversations of train repeat another one" in str(ended.error)
    assert plan_training(training(lines, limits={"max_repeated_fraction": 0.2})).error is None


def test_poor_references_are_counted_with_the_first_of_each_kind(training):
    lines = records(8)
    lines[2]["summaries"] = ["done"]
    lines[5]["summaries"] = lines[4]["summaries"][:1]
    contents = check_of(plan_training(training(lines)), "contents")
    for fault, line in (("too short for a summary", 3), ("also the reference of another", 6)):
        (told,) = [each for each in contents.found.splitlines() if fault in each]
        assert told.startswith("warning: 1 reference is ")
        assert told.endswith(f"train.jsonl line {line}")

    for brief in (False, True):
        config = training(lines, limits={"max_poor_fraction": 0.1})
        ended = plan_training(config, brief=brief)
        assert ended.error is not None
        assert "2 of 14 references of train are empty, too short" in str(ended.error)


def test_shares_of_the_text_are_by_role(training):
    contents = check_of(
        plan_training(training([spoken(0, ["word"] * 40), *records(1)])), "contents"
    )
    shares = contents.facts["train"]["characters_by_role"]
    assert shares.keys() == {"customer", "agent"}
    assert "of the text, customer " in contents.found


def test_references_that_would_be_cut_are_found(training):
    lines = [*records(8), spoken(0, LONG[:10], " ".join(LONG))]
    found = plan_training(training(lines))
    assert found.error is None
    rows = check_of(found, "rows")
    assert "warning: 1 reference is longer than generation.max_new_tokens (64)" in rows.found
    assert rows.facts["train"]["references_longer_than_max_new_tokens"] == 1

    config = training(lines, limits={"max_cut_fraction": 0.05})
    ended = plan_training(config)
    assert ended.error is not None
    assert ended.error.exit_code == ExitCode.DATA
    assert "raise generation.max_new_tokens, or the limit" in str(ended.error)
    with pytest.raises(DataError, match="1 of 17 references of train are longer"):
        prepared(config)


def test_a_reference_that_the_tokenizer_drops_is_found(training, base_folder, tmp_path):
    """It has three words and more, but a tokenizer without bytes leaves out what it lacks."""
    base = tmp_path / "base"
    shutil.copytree(base_folder, base)
    tokenizer = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    del tokenizer["model"]["vocab"]["~"]
    (base / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    lines = [*records(8), spoken(0, LONG[:10], "~" * 40)]
    found = plan_training(training(lines, model={"base": str(base)}))
    assert found.error is not None
    assert found.error.exit_code == ExitCode.DATA
    assert "row 17 of 17 of train teaches nothing but the end" in str(found.error)


def test_rows_that_lose_turns_are_an_error_beyond_their_limit(training):
    lines = long_conversations(8)
    config = training(lines, limits={"max_shortened_fraction": 0.5})
    ended = plan_training(config)
    assert ended.error is not None
    assert "8 of 8 rows of train lose turns to fit into 400 tokens" in str(ended.error)
    with pytest.raises(DataError, match=r"limits\.max_shortened_fraction allows 50%"):
        prepared(config)


def long_conversations(count: int) -> list[dict[str, Any]]:
    """Return conversations of different lengths that all lose turns."""
    found = []
    for number in range(count):
        turns = []
        for place in range(10 + number):
            text = f"This is sentence {place} of {number}, and it is a long one about nothing."
            turns.append({"role": ("customer", "agent")[place % 2], "text": text})
        found.append({"id": f"l{number}", "turns": turns, "summary": f"They spoke of {number}."})
    return found


def prepared(config: TrainConfig) -> Any:
    from job.training.prepare import prepare

    work = Path(config.output) / "work"
    work.mkdir(parents=True, exist_ok=True)
    return prepare(config, work, LocalStore(str(work)))


def test_a_training_reports_the_rows_tokens_and_lost_turns_of_its_plan(training):
    config = training([*records(8), *long_conversations(6)])
    planned = check_of(plan_training(config), "rows").facts
    assert planned["train"]["dropped_turns"] > 6
    counts = prepared(config).counts()
    for split in ("train", "validation"):
        reported = {name: counts[split][name] for name in planned[split] if name in counts[split]}
        assert len(reported) == 7
        assert reported.items() <= planned[split].items()


def test_a_training_finds_the_rows_of_its_plan(training, monkeypatch):
    config = training(records(8))
    plan_training(config)

    def fail(*arguments: Any) -> None:
        raise AssertionError("the plan has done it")

    monkeypatch.setattr("job.training.stored_examples.read_examples", fail)
    monkeypatch.setattr("job.training.stored_rows.write_rows", fail)
    assert prepared(config).counts()["train"]["rows"] == 16


def test_an_example_shows_what_is_learned(training):
    example = check_of(plan_training(training(records(8))), "example").found
    before, learned = example.split("⟪")
    assert "customer: My phone number 0 does not work" in before
    assert learned == "phone 0 fixed by a restart.</s>⟫"


def test_only_a_terminal_sees_the_example(recap, training, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(training(records(8)).model_dump_json(), encoding="utf-8")
    ended = recap("plan", path)
    assert ended.code == ExitCode.DONE
    assert "train: 16 rows, " in ended.out
    assert "does not work since day" not in ended.out


def test_what_the_config_redacts_is_redacted_in_the_example(training):
    lines = records(8)
    lines[0]["turns"][0]["text"] = "Write to ada@example.com, please."
    found = plan_training(training(lines, serve={"redaction": {}}))
    assert "ada@" not in check_of(found, "example").found


def test_numbers_are_drawn_in_ranges_that_double():
    counts = {1: 2, 2: 4, 3: 1, 4: 1, 17: 8}
    assert ranges_of(counts) == {
        (1, 1): 2,
        (2, 2): 4,
        (3, 4): 2,
        (5, 8): 0,
        (9, 16): 0,
        (17, 32): 8,
    }
    lines = histogram(counts)
    assert [line.split() for line in lines[-2:]] == [
        ["9", "to", "16", "0"],
        ["17", "to", "32", "█" * 24, "8"],
    ]
    assert (quantile(counts, 0.5), quantile(counts, 0.95)) == (4, 17)
    assert histogram({}) == []


def test_a_plan_for_programs_has_its_numbers(recap, training, tmp_path):
    config = training(records(8))
    path = tmp_path / "c.json"
    path.write_text(config.model_dump_json(), encoding="utf-8")
    ended = recap("plan", path, "--json")
    assert ended.code == ExitCode.DONE
    report = json.loads(ended.out)
    by_name = {check["name"]: check for check in report["checks"]}
    assert report["exit_code"] == 0
    assert "example" not in by_name
    assert by_name["rows"]["state"] == "well"
    assert by_name["rows"]["facts"]["train"]["rows"] == 16
    assert by_name["steps"]["facts"] == {
        "steps": 6,
        "steps_per_epoch": 2,
        "rows": 16,
        "rows_per_step": 8,
        "processes": 1,
        "steps_by_gpus": {"2": 3, "4": 3, "8": 3},
        "is_exact": False,  # the job's machine may have several GPUs
    }

    ended = recap("plan", path, "--json", "--set", "lora.target_modules=[nothing]")
    report = json.loads(ended.out)
    assert report["exit_code"] == ended.code == ExitCode.CONFIG
    (failed,) = [check for check in report["checks"] if check["state"] == "error"]
    assert (failed["name"], failed["exit_code"]) == ("model", ExitCode.CONFIG)
