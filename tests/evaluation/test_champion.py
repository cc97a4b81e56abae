"""Claims about `recap champion`: what it verifies, what it writes, and what it shows."""

import json
import shutil
from dataclasses import replace

import pytest

from job.errors import ExitCode
from job.evaluation.gate import GateResult, write_gate
from job.storage.folders import publish_folder
from job.storage.open import open_store
from tests.champions import put_lora


@pytest.fixture
def adapters(tmp_path):
    """Two adapters that differ."""
    for rank, name in enumerate(("a", "b"), start=1):
        put_lora(f"{tmp_path}/{name}/adapter", tmp_path / name / "work", rank)
    return [f"{tmp_path}/{name}/adapter" for name in ("a", "b")]


@pytest.fixture
def pointer(tmp_path):
    return f"{tmp_path}/champions/support.json"


@pytest.fixture
def champion(recap, pointer):
    def call(verb, *words):
        return recap("champion", verb, pointer, *words)

    return call


def content(pointer):
    with open(pointer, encoding="utf-8") as file:
        return json.load(file)


def test_a_champion_is_set_shown_and_rolled_back(champion, adapters, pointer):
    assert champion("set", adapters[0], "--by", "Ada", "--reason", "the first").code == 0
    assert champion("set", adapters[1]).code == 0
    shown = champion("show").out
    assert shown.startswith(f"The champion of {pointer}\n")
    assert f"adapter     {adapters[1]}" in shown
    assert "the adapter is there, with this digest" in shown
    assert "  <- a rollback brings it back\n" in shown
    assert f"        {adapters[0]}\n        by Ada: the first" in shown
    assert len(shown.splitlines()) < 25, "one screen"

    rolled = champion("rollback", "--reason", "b invents numbers")
    assert rolled.code == 0
    assert f"adapter     {adapters[0]}" in rolled.out
    assert "version 3, rolled back to version 1" in rolled.out
    assert [each["adapter"] for each in content(pointer)["history"]] == adapters[::-1]


def test_an_adapter_named_relatively_is_recorded_absolutely(
    champion, adapters, pointer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    champion("set", "a/adapter")
    assert content(pointer)["adapter"] == adapters[0]
    assert "@" in content(pointer)["by"]


def test_setting_the_champion_again_writes_nothing(champion, adapters, pointer):
    champion("set", adapters[0])
    before = content(pointer)
    assert champion("set", adapters[0], "--reason", "again").code == 0
    assert content(pointer) == before


def test_another_pointer_may_name_the_adapter(recap, champion, adapters, pointer, tmp_path):
    recap("champion", "set", f"{tmp_path}/staging.json", adapters[0])
    assert champion("set", f"{tmp_path}/staging.json").code == 0
    assert content(pointer)["adapter"] == adapters[0]


def test_a_damaged_adapter_does_not_become_champion(champion, adapters, pointer, tmp_path):
    weights = tmp_path / "a" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    ended = champion("set", adapters[0])
    assert ended.code == ExitCode.DATA, ended.err
    assert champion("show").code == ExitCode.MISSING


def test_a_replaced_adapter_is_shown_with_a_warning(champion, adapters, tmp_path):
    champion("set", adapters[0])
    champion("set", adapters[1])
    for name in ("a", "b"):
        manifest = tmp_path / name / "adapter" / "manifest.json"
        shutil.copytree(tmp_path / name / "work", tmp_path / name / "new")
        (tmp_path / name / "new" / "README.md").write_text("replaced")
        extra = json.loads(manifest.read_text())["extra"]
        publish_folder(tmp_path / name / "new", open_store(str(manifest.parent)), "", extra)
    shown = champion("show")
    assert shown.code == 0
    assert "WARNING: nights that follow this pointer will fail" in shown.out
    refused = champion("rollback")
    assert refused.code == ExitCode.DATA
    assert "it was replaced. Put it back, or name the adapter" in refused.err


@pytest.mark.parametrize("is_scored", [True, False])
def test_a_champion_set_by_hand_says_that_it_failed_its_gate(
    champion, pointer, good, tmp_path, is_scored
):
    work = tmp_path / "failed" / "work"
    verdict = GateResult(False, "tuned", "rougeL", 40, "none yet", reason="it beat nobody")
    work.mkdir(parents=True)
    write_gate(work, verdict)
    if is_scored:
        evaluation = replace(good, gate=verdict.to_json())
        (work / "evaluation.json").write_text(json.dumps(evaluation.to_json()))
    put_lora(f"{tmp_path}/failed/adapter", work)
    assert champion("set", f"{tmp_path}/failed/adapter", "--by", "Ada").code == 0
    assert (
        "gate        WARNING: set by hand: tuned did not pass the gate: it beat nobody"
        in champion("show").out
    )
    assert content(pointer)["evaluation"]["gate"]["passed"] is False


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["--by", "a\x1b[2Jb"], ExitCode.CONFIG, "by is no short text"),
        (["--reason", "x" * 3000], ExitCode.CONFIG, "reason is no short text"),
    ],
)
def test_what_no_pointer_may_have_is_refused(champion, adapters, words, code, why):
    ended = champion("set", adapters[0], *words)
    assert ended.code == code
    assert why in ended.err


def test_a_pointer_ends_in_json(recap, adapters, tmp_path):
    ended = recap("champion", "set", f"{tmp_path}/champion", adapters[0])
    assert ended.code == ExitCode.CONFIG
    assert "ends in .json" in ended.err


def test_a_pointer_for_all_names_no_folder_of_one_machine(recap, adapters, s3):
    ended = recap("champion", "set", f"{s3.uri}/champions/support.json", adapters[0])
    assert ended.code == ExitCode.CONFIG
    assert "a folder of one machine" in ended.err
