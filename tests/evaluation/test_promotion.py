"""Claims about promotions: only what passed, once, and never over a champion that nobody judged."""

import json
from dataclasses import replace

import pytest

from job.config.sections import StorageSection
from job.errors import ConfigError, ExitCode, OutputError, RetryError
from job.evaluation.champion import key_numbers, lost_by_check, set_champion
from job.evaluation.champion_screen import champion_screen
from job.evaluation.gate import Check, GateResult
from job.evaluation.later import later_facts
from job.evaluation.promotion import (
    Judged,
    check_promotable,
    find_champion,
    promote,
    was_promoted,
)
from job.evaluation.reload import Reload
from job.model.champion import Promotion, find_pointer, now, read_pointer, roll_back, switch
from job.model.fetch import BASE_KEY, read_adapter
from job.storage.folders import publish_folder
from job.storage.open import open_store
from tests.champions import put_lora

STORAGE = StorageSection()
PASSED = GateResult(True, "tuned", "rougeL", 40, "none yet")
FAILED = GateResult(False, "tuned", "rougeL", 40, "none yet")


@pytest.fixture
def pointer(tmp_path):
    return str(tmp_path / "champion.json")


@pytest.fixture
def adapter(tmp_path):
    """Publish an adapter without weights by its name."""

    def put(name):
        folder = tmp_path / "local" / name
        folder.mkdir(parents=True)
        (folder / "weights").write_text(name)
        uri = str(tmp_path / "runs" / name / "adapter")
        facts = {BASE_KEY: {"uri": "base", "digest": "b" * 64}}
        publish_folder(folder, open_store(uri), "", facts)
        return read_adapter(uri, STORAGE)

    return put


@pytest.fixture
def judged(good):
    """An adapter with an evaluation that has a verdict: by default, that it passed."""

    def make(adapter, result=PASSED, reload=None):
        evaluation = replace(good, gate=result.to_json())
        source = "s3://b/report/evaluation.json"
        return Judged(adapter, evaluation, source, "recap train small", reload)

    return make


def test_the_first_that_passes_becomes_the_champion(pointer, adapter, judged):
    first = adapter("first")
    nobody = find_champion(pointer, STORAGE)
    assert nobody.state() == "none yet"
    promote(nobody, judged(first), STORAGE)
    champion = read_pointer(pointer, STORAGE).champion
    assert (champion.adapter, champion.digest) == (first.uri, first.digest)
    assert champion.by == "recap train small"
    assert champion.reason == "tuned passed the gate: 0 checks on 40 conversations"
    assert champion.evaluation["source"] == "s3://b/report/evaluation.json"
    assert champion.evaluation["gains"]["constant sentence"][0] > 0
    assert champion.evaluation["reload"]["state"] == "not asked for"
    assert champion.doubts() == []


def test_a_champion_that_nobody_could_reload_says_so(pointer, adapter, judged):
    reload = Reload("not verified", why="the disk was full")
    promote(find_champion(pointer, STORAGE), judged(adapter("first"), reload=reload), STORAGE)
    found = read_pointer(pointer, STORAGE)
    assert found.champion.doubts() == ["nobody could reload it by plain peft and transformers"]
    screen = champion_screen(found, STORAGE)
    assert "reload      WARNING: not reloaded before it was published: the disk was full" in screen


@pytest.mark.parametrize("is_of_this_adapter", [True, False])
def test_by_hand_the_last_verdict_on_a_published_adapter_counts(
    pointer, good, tmp_path, adapter, is_of_this_adapter, monkeypatch
):
    monkeypatch.setenv("RECAP_CACHE", str(tmp_path / "cache"))
    put_lora(str(tmp_path / "run" / "adapter"), tmp_path / "lora")
    made = read_adapter(str(tmp_path / "run" / "adapter"), STORAGE)
    last = replace(good, gate=PASSED.to_json())
    report = tmp_path / "local" / "report"
    report.mkdir(parents=True)
    (report / "evaluation.json").write_text(json.dumps(last.to_json()))
    about = later_facts(made if is_of_this_adapter else adapter("other"), Reload("same"))
    store = open_store(made.uri.removesuffix("/adapter"))
    publish_folder(report, store, "report", about)

    numbers = set_champion(pointer, made.uri, STORAGE, "a person").champion.evaluation
    assert numbers.get("gate", {}).get("passed", False) == is_of_this_adapter
    state = "same" if is_of_this_adapter else "not asked for"
    assert numbers["reload"]["state"] == state
    if is_of_this_adapter:
        assert numbers["source"] == f"{store.uri}/report/evaluation.json"


def test_what_did_not_pass_is_never_promoted(pointer, adapter, judged):
    with pytest.raises(AssertionError):
        promote(find_champion(pointer, STORAGE), judged(adapter("bad"), FAILED), STORAGE)
    assert find_pointer(pointer, STORAGE) is None


def test_of_two_that_judged_against_one_champion_the_second_is_told(pointer, adapter, judged):
    before = find_champion(pointer, STORAGE)
    one, two = adapter("one"), adapter("two")
    promote(before, judged(one), STORAGE)
    with pytest.raises(RetryError, match="somebody else switched it meanwhile") as caught:
        promote(before, judged(two), STORAGE)
    assert caught.value.exit_code == ExitCode.RETRY
    assert "compares the adapter with the new champion" in str(caught.value)
    assert read_pointer(pointer, STORAGE).champion.adapter == one.uri

    again = find_champion(pointer, STORAGE)
    assert (again.state(two.digest), again.digest) == ("compared", one.digest)
    promote(again, judged(two), STORAGE)
    assert read_pointer(pointer, STORAGE).champion.version == 2


def passed_with(gain, compared, metric="rougeL", passed=True):
    """Return a verdict with this gain over the champion that was compared."""
    name = "no worse than the champion"
    check = Check(name, "champion", metric, "no worse", 0.01, True, "", gain, gain, gain)
    return GateResult(passed, "tuned", metric, 40, "compared", compared, [check])


def test_what_is_lost_since_the_best_champion_is_known(pointer, adapter, judged):
    def promoted(name, gain, **verdict):
        champion = find_champion(pointer, STORAGE)
        verdict = passed_with(gain, champion.digest, **verdict)
        promote(champion, judged(adapter(name), verdict), STORAGE)

    def lost():
        return lost_by_check(read_pointer(pointer, STORAGE), "rougeL")

    promoted("a", 0.0)
    assert lost() == {}, "it is the first"
    promoted("b", 0.02)
    assert lost() == {}
    for name in ("c", "d"):
        promoted(name, -0.006)
    assert lost() == {"no worse than the champion": pytest.approx(0.012)}
    assert lost_by_check(read_pointer(pointer, STORAGE), "chrf") == {}
    roll_back(read_pointer(pointer, STORAGE), STORAGE, "a person")
    assert lost() == {"no worse than the champion": pytest.approx(0.006)}
    promoted("e", 0.01)
    assert lost() == {}


@pytest.mark.parametrize(("is_passed", "is_compared"), [(False, True), (True, False)])
def test_what_a_person_let_in_begins_anew(pointer, adapter, judged, is_passed, is_compared):
    first, other = adapter("first"), adapter("other")
    promote(find_champion(pointer, STORAGE), judged(first), STORAGE)
    compared = first.digest if is_compared else other.digest
    verdict = passed_with(-0.3, compared, passed=is_passed)
    numbers = key_numbers(judged(other, verdict).evaluation, "s3://b/evaluation.json")
    by_hand = Promotion(other.uri, other.digest, now(), "a person", evaluation=numbers)
    switch(pointer, STORAGE, by_hand, read_pointer(pointer, STORAGE))
    found = read_pointer(pointer, STORAGE)
    assert found.champion.evaluation["gate"]["passed"] is is_passed
    assert lost_by_check(found, "rougeL") == {}


def test_a_champion_is_not_promoted_twice(pointer, adapter, judged):
    first = adapter("first")
    promote(find_champion(pointer, STORAGE), judged(first), STORAGE)
    itself = find_champion(pointer, STORAGE)
    assert itself.state(first.digest) == "itself"
    assert promote(itself, judged(first), STORAGE) is None
    assert read_pointer(pointer, STORAGE).champion.version == 1


def test_the_champion_is_compared_with_itself_if_it_is_served_otherwise(pointer, adapter, judged):
    first = adapter("first")
    promote(find_champion(pointer, STORAGE), judged(first), STORAGE)
    champion = find_champion(pointer, STORAGE)
    assert champion.state(first.digest) == "itself"
    assert replace(champion, is_served_otherwise=True).state(first.digest) == "compared"


def test_a_promotion_is_known_after_a_rollback(pointer, adapter, judged):
    first, second, third = adapter("first"), adapter("second"), adapter("third")
    for each in (first, second):
        promote(find_champion(pointer, STORAGE), judged(each), STORAGE)
    roll_back(read_pointer(pointer, STORAGE), STORAGE, "a person")
    found = read_pointer(pointer, STORAGE)
    assert found.champion.adapter == first.uri
    assert was_promoted(found, second)
    assert not was_promoted(found, third)
    assert not was_promoted(None, first)


def test_without_a_pointer_nothing_is_switched(adapter, judged):
    first, second = adapter("first"), adapter("second")
    assert promote(find_champion(None, STORAGE), judged(second), STORAGE) is None
    compared = find_champion(first.uri, STORAGE)
    assert compared.state(second.digest) == "compared"
    assert promote(compared, judged(second), STORAGE) is None


def test_a_champion_that_is_gone_is_compared_with_nobody(pointer):
    lost = Promotion("/gone/adapter", "a" * 64, now(), "a person")
    switch(pointer, STORAGE, lost, None)
    found = find_champion(pointer, STORAGE)
    assert found.state("b" * 64) == "compared", "it is not the first"
    assert found.adapter is None
    assert "its champion is gone" in found.why


def test_a_pointer_that_cannot_be_written_is_no_reason_to_run_again(
    pointer, adapter, monkeypatch, judged
):
    first = adapter("first")
    nobody = find_champion(pointer, STORAGE)

    def full(*_):
        raise OutputError("the disk is full")

    monkeypatch.setattr("job.evaluation.promotion.switch", full)
    with pytest.raises(OutputError, match="the disk is full"):
        promote(nobody, judged(first), STORAGE)


def test_a_pointer_for_everybody_cannot_name_a_folder_of_one_machine(tmp_path):
    with pytest.raises(ConfigError, match="a folder of one machine"):
        check_promotable("s3://bucket/champion.json", str(tmp_path / "adapter"))
    check_promotable("s3://bucket/champion.json", "s3://bucket/run/adapter")
    check_promotable(str(tmp_path / "champion.json"), "runs/small/adapter")
