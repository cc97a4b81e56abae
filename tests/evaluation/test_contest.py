"""Claims about evaluations with a gate: what is compared, recorded, promoted and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import EvaluateConfig
from job.config.gate_sections import MIN_CONVERSATIONS
from job.config.sections import StorageSection
from job.errors import ExitCode, RetryError
from job.evaluation import contest, run
from job.evaluation.run import run_evaluation
from job.model.champion import Promotion, find_pointer, now, read_pointer, switch
from job.model.fetch import read_adapter
from job.storage.folders import publish_folder, read_manifest
from job.storage.local import LocalStore
from tests.adapters import publish_adapter
from tests.evaluation.conftest import make_conversations
from tests.summarization.conftest import files_below

STORAGE = StorageSection()
CONVERSATIONS = make_conversations(MIN_CONVERSATIONS)
# Whoever says anything passes: of random weights, nothing else can be asked.
LOOSE = {"better_than": [], "no_worse_than": ["base", "champion"], "margin": 1, "guards": {}}


@pytest.fixture(autouse=True)
def alone(places: Path, one_thread: None) -> None:
    """Every test here has a cache and a work folder of its own."""


@pytest.fixture
def config(tmp_path: Path):
    """Make the config of an evaluation of enough conversations."""
    records = [
        {
            "id": each.id,
            "turns": [{"role": turn.role, "text": turn.text} for turn in each.turns],
            "summaries": each.references,
        }
        for each in CONVERSATIONS
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))

    def make(**keys: Any) -> EvaluateConfig:
        content = {
            "run": "score",
            "input": str(tmp_path / "in.jsonl"),
            "output": str(tmp_path / "out"),
            "evaluation": {"bootstrap_samples": 100},
            "generation": {"max_new_tokens": 4},
        }
        return EvaluateConfig.model_validate(content | keys)

    return make


@pytest.fixture
def given(tmp_path: Path):
    """Write a file of summaries, one text for each conversation, and return its path."""

    def write(texts) -> str:
        lines = [
            {"id": each.id, "summary": text}
            for each, text in zip(CONVERSATIONS, texts, strict=True)
        ]
        path = tmp_path / "given.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return str(path)

    return write


@pytest.fixture
def adapter(tmp_path: Path, base_folder: Path) -> str:
    uri = str(tmp_path / "adapter")
    publish_adapter(base_folder, tmp_path / "work", uri)
    return uri


def twin(adapter: str, folder: Path) -> str:
    """Publish a copy of an adapter with another digest."""
    shutil.copytree(adapter, folder)
    (folder / "README.md").write_text("A twin.\n")
    extra = read_manifest(LocalStore(adapter), "").extra
    publish_folder(folder, LocalStore(str(folder)), "", extra)
    return str(folder)


def gate_of(tmp_path):
    return json.loads((tmp_path / "out" / "gate.json").read_text())


def test_good_summaries_pass_and_the_verdict_is_recorded(config, given, tmp_path):
    summaries = given([each.references[0] for each in CONVERSATIONS])
    evaluation = run_evaluation(config(summaries=summaries, publish={"gate": {}})).evaluation
    assert evaluation.gate["passed"]
    assert gate_of(tmp_path) == evaluation.gate
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["gate"]["passed"]

    run_evaluation(config(summaries=summaries))
    assert "gate.json" not in files_below(tmp_path / "out"), "of an evaluation without a gate"
    run_evaluation(config(summaries=summaries))


def test_a_copy_of_the_conversation_is_refused(config, given, tmp_path):
    copied = [" ".join(turn.text for turn in each.turns) for each in CONVERSATIONS]
    evaluation = run_evaluation(
        config(summaries=given(copied), publish={"gate": {"better_than": ["floors"]}})
    ).evaluation
    assert not evaluation.gate["passed"]
    failed = [check["name"] for check in evaluation.gate["checks"] if check["passed"] is False]
    assert "Copied, against the human references" in failed


def test_the_command_ends_with_76_and_says_why(config, given, tmp_path, recap):
    summaries = given(["The agent helps."] * len(CONVERSATIONS))
    loaded = config(summaries=summaries, publish={"gate": {}})
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(loaded.model_dump(mode="json", exclude_unset=True)))
    result = recap("evaluate", str(path))
    assert result.code == ExitCode.GATE
    assert "given file did not pass the gate" in result.err
    assert "What serves is unchanged" in result.err
    assert "ROUGE-L" in result.out, "the table comes first"


@pytest.mark.quality
def test_an_adapter_that_passes_becomes_the_champion_once(config, adapter, tmp_path):
    pointer = str(tmp_path / "champion.json")
    publish = {"champion": pointer, "gate": LOOSE}
    evaluation = run_evaluation(config(adapter=adapter, publish=publish)).evaluation
    assert evaluation.gate["champion_state"] == "none yet"
    champion = read_pointer(pointer, STORAGE).champion
    assert (champion.adapter, champion.by) == (adapter, "recap evaluate score")
    assert champion.evaluation["serving"]["engine"] == "transformers"

    again = run_evaluation(config(adapter=adapter, publish=publish)).evaluation
    assert again.gate["champion_state"] == "itself"
    assert "champion" not in again.systems, "it is not compared with itself"
    assert read_pointer(pointer, STORAGE).champion.version == 1


@pytest.mark.quality
def test_the_champion_is_judged_anew_with_other_settings_and_keeps_them(config, adapter, tmp_path):
    pointer = str(tmp_path / "champion.json")
    publish = {"champion": pointer, "gate": LOOSE}
    run_evaluation(config(adapter=adapter, publish=publish))
    longer = {"max_new_tokens": 6}
    judged = run_evaluation(config(adapter=adapter, publish=publish, generation=longer)).evaluation
    assert judged.gate["champion_state"] == "compared"
    served = [judged.systems[name].serving["generation"] for name in ("tuned", "champion")]
    assert [generation["max_new_tokens"] for generation in served] == [6, 4]

    # Nothing but the settings is new, and who names none takes them from the pointer.
    for named in (adapter, pointer):
        again = run_evaluation(config(adapter=named, publish=publish, generation={})).evaluation
        assert again.gate["champion_state"] == "itself"
        assert again.systems["tuned"].serving["generation"]["max_new_tokens"] == 6
    found = read_pointer(pointer, STORAGE)
    assert [each.version for each in found.lineage()] == [2, 1]
    assert found.champion.digest == found.history[0].digest
    assert found.champion.evaluation["serving"]["generation"]["max_new_tokens"] == 6


@pytest.mark.quality
def test_what_the_champion_is_not_shown_to_keep_up_with_changes_nothing(config, adapter, tmp_path):
    pointer = str(tmp_path / "champion.json")
    publish = {"champion": pointer, "gate": LOOSE}
    run_evaluation(config(adapter=adapter, publish=publish))
    publish["gate"] = LOOSE | {"better_than": ["champion"], "no_worse_than": []}
    changed = config(adapter=adapter, publish=publish, generation={"max_new_tokens": 5})
    assert not run_evaluation(changed).evaluation.gate["passed"]
    assert read_pointer(pointer, STORAGE).champion.version == 1


@pytest.mark.quality
def test_an_adapter_is_compared_with_the_champion_and_on_older_sets(config, adapter, tmp_path):
    challenger = twin(adapter, tmp_path / "challenger")
    pointer = str(tmp_path / "champion.json")
    publish = {
        "champion": pointer,
        "gate": LOOSE,
        "regressions": [
            {"name": "old", "input": str(tmp_path / "in.jsonl")},
            {"name": "gone", "input": str(tmp_path / "gone.jsonl")},
        ],
    }
    first = run_evaluation(config(adapter=adapter, publish=publish)).evaluation
    assert first.gate["passed"], "older sets are compared with the champion, and there is none"

    second = run_evaluation(config(adapter=challenger, publish=publish)).evaluation
    checks = {check["name"]: check for check in second.gate["checks"]}
    assert checks["no worse than the champion"]["value"] == 0, "both have the same weights"
    assert checks["older set old"]["passed"]
    assert not checks["older set gone"]["passed"]
    assert second.systems["champion"].serving == second.systems["tuned"].serving
    assert read_pointer(pointer, STORAGE).champion.adapter == adapter, "it did not pass"


def write_pairs(path, texts):
    """Write a pair of each conversation: what the agent made of it, and what was shown."""
    lines = [
        {
            "id": each.id,
            "turns": [{"role": turn.role, "text": turn.text} for turn in each.turns],
            "chosen": text,
            "rejected": "Nothing was said.",
        }
        for each, text in zip(CONVERSATIONS, texts, strict=True)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"input": str(path), "min_win_rate": 0.4}


@pytest.mark.quality
def test_pairs_are_compared_with_the_base_and_then_with_the_champion(config, adapter, tmp_path):
    """Edits that are what the adapter says let it in; a twin that says the same only ties."""
    train = tmp_path / "train.jsonl"
    talk = {"id": "t", "turns": [{"role": "customer", "text": "Unlike all."}], "summary": "One."}
    train.write_text(json.dumps(talk) + "\n")
    pointer = str(tmp_path / "champion.json")
    common = {"adapter": adapter, "train": str(train)}
    run_evaluation(config(**common))
    lines = (tmp_path / "out" / "summaries.jsonl").read_text().splitlines()
    said = [json.loads(line)["summary"] + " indeed" for line in lines]
    pairs = write_pairs(tmp_path / "pairs.jsonl", said)
    publish = {"champion": pointer, "gate": LOOSE, "pairs": pairs}

    first = run_evaluation(config(**common, publish=publish)).evaluation
    assert first.pairs["opponent"] == "base without adapter"
    assert first.gate["passed"], first.gate
    promoted = read_pointer(pointer, STORAGE).champion.evaluation["pairs"]
    assert promoted["opponent"] == "base without adapter"

    common["adapter"] = twin(adapter, tmp_path / "challenger")
    pairs["min_win_rate"] = 0.5
    second = run_evaluation(config(**common, publish=publish)).evaluation
    assert second.pairs["opponent"] == "champion"
    assert second.pairs["ties"] == len(CONVERSATIONS)
    failed = [check["rule"] for check in second.gate["checks"] if check["passed"] is False]
    assert failed == ["win rate"], "a tie is no win"
    assert "Held-out pairs" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.quality
def test_pairs_that_were_trained_on_let_nobody_pass(config, adapter, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.jsonl", ["The agent helps."] * len(CONVERSATIONS))
    publish = {"gate": LOOSE, "pairs": pairs}
    trained_on = {"adapter": adapter, "train": str(tmp_path / "in.jsonl")}
    evaluation = run_evaluation(config(**trained_on, publish=publish)).evaluation
    assert not evaluation.gate["passed"]
    assert "40 training conversations repeat one of the held-out pairs" in evaluation.pairs["why"]


@pytest.mark.quality
def test_somebody_who_was_faster_makes_the_command_run_again(
    config, adapter, tmp_path, monkeypatch
):
    pointer = str(tmp_path / "champion.json")
    judge = contest.judge_contest

    def slow(*arguments):
        other = Promotion("/other", "a" * 64, now(), "somebody")
        switch(pointer, STORAGE, other, find_pointer(pointer, STORAGE))
        return judge(*arguments)

    monkeypatch.setattr(run, "judge_contest", slow)
    with pytest.raises(RetryError, match="somebody else switched it meanwhile"):
        run_evaluation(config(adapter=adapter, publish={"champion": pointer, "gate": LOOSE}))
    assert read_pointer(pointer, STORAGE).champion.adapter == "/other"


@pytest.mark.quality
def test_a_comparison_without_a_pointer_to_publish_switches_nothing(config, adapter, tmp_path):
    other = twin(adapter, tmp_path / "twin")
    pointer = str(tmp_path / "champion.json")
    digest = read_adapter(other, STORAGE).digest
    switch(pointer, STORAGE, Promotion(other, digest, now(), "a person"), None)
    loaded = config(adapter=adapter, champion=pointer, publish={"gate": LOOSE})
    assert run_evaluation(loaded).evaluation.gate["passed"]
    assert read_pointer(pointer, STORAGE).champion.adapter == other


@pytest.mark.quality
def test_given_summaries_are_compared_with_the_champion(config, given, adapter, tmp_path):
    summaries = given([each.references[0] for each in CONVERSATIONS])
    loaded = config(summaries=summaries, champion=adapter, publish={"gate": {}})
    evaluation = run_evaluation(loaded).evaluation
    assert evaluation.systems["champion"].kind == "champion"
    assert evaluation.systems["champion"].serving["engine"] == "transformers"
    names = [check["name"] for check in evaluation.gate["checks"]]
    assert "no worse than the champion" in names
    assert evaluation.gate["passed"]


@pytest.mark.quality
def test_a_champion_that_cannot_be_loaded_lets_nobody_pass(config, adapter, tmp_path):
    pointer = str(tmp_path / "champion.json")
    switch(pointer, STORAGE, Promotion("/gone", "a" * 64, now(), "a person"), None)
    publish = {"champion": pointer, "gate": LOOSE}
    evaluation = run_evaluation(config(adapter=adapter, publish=publish)).evaluation
    assert not evaluation.gate["passed"]
    assert "tuned" in evaluation.systems, "its scores are there"
    assert read_pointer(pointer, STORAGE).champion.adapter == "/gone"
