"""Claims about trainings with a gate: how they end, and what a kill between two steps leaves."""

import json
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.config.gate_sections import MIN_CONVERSATIONS
from job.config.sections import StorageSection
from job.errors import ExitCode, GateError
from job.evaluation.champion import set_champion
from job.model.champion import Promotion, now, read_pointer, roll_back, switch
from job.model.fetch import read_adapter
from job.preflight.training import plan_training
from job.storage.folders import verify_folder
from tests.faults.trials import journal_of, store_of
from tests.storage.hub_server import Hub
from tests.training.conftest import records, write_jsonl

pytestmark = [pytest.mark.quality, pytest.mark.usefixtures("places")]
STORAGE = StorageSection()
# Whoever says anything passes: a few steps teach nothing.
LOOSE = {"better_than": [], "no_worse_than": ["base", "champion"], "margin": 1, "guards": {}}
STRICT = {"better_than": ["floors"], "guards": {}}


@pytest.fixture
def gated(config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A run of two steps with a pointer that does not exist yet, and enough conversations."""
    config["training"] |= {"max_steps": 2, "sample_summaries": 0, "save_every_steps": 1}
    validation = write_jsonl(tmp_path / "validation.jsonl", records(MIN_CONVERSATIONS, first=100))
    config["data"]["validation"] = str(validation)
    config["evaluation"]["max_conversations"] = MIN_CONVERSATIONS
    config["generation"] = {"max_new_tokens": 4}
    config["publish"] |= {"champion": str(tmp_path / "champion.json"), "gate": LOOSE}
    return config


@pytest.fixture
def pointer(gated: dict[str, Any]) -> str:
    return gated["publish"]["champion"]


@pytest.fixture
def reaching(hub: Hub) -> dict[str, str]:
    """The environment of a trial that reaches the Hub."""
    return {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "INSTRUMENTS": "reach_the_hub"}


def adapter_of(config: dict[str, Any]) -> str:
    return f"{config['output']}/{config['run']}/adapter"


def scored_again(log: str) -> bool:
    return '"message": "engine"' in log


def test_an_adapter_that_does_not_pass_is_kept_and_ends_with_76(gated, trials, pointer):
    gated["publish"]["gate"] = STRICT
    code, log = trials.run(gated)
    assert code == ExitCode.GATE, log
    assert "tuned did not pass the gate" in log
    assert "What serves is unchanged" in log
    assert f"recap champion set {pointer} {adapter_of(gated)}" in log
    assert not Path(pointer).exists()

    folder = Path(adapter_of(gated))
    verify_folder(folder)
    assert not json.loads((folder / "gate.json").read_text())["passed"]
    assert not json.loads((folder / "evaluation.json").read_text())["gate"]["passed"]
    journal = journal_of(store_of(gated))
    assert journal["state"] == "finished"
    assert "did not pass the gate" in journal["attempts"][-1]["reason"]

    again, log = trials.run(gated)
    assert (again, scored_again(log)) == (ExitCode.GATE, False), "from its record, without work"
    planned = plan_training(TrainConfig.model_validate(gated), brief=True)
    assert planned.done
    assert isinstance(planned.error, GateError)
    gated["publish"] = {"verify": False}
    assert plan_training(TrainConfig.model_validate(gated), brief=True).error is None


def test_an_adapter_that_passes_becomes_the_champion(gated, trials, pointer):
    code, log = trials.run(gated)
    assert code == ExitCode.DONE, log
    champion = read_pointer(pointer, STORAGE).champion
    assert (champion.adapter, champion.by) == (adapter_of(gated), "recap train tiny")
    assert champion.digest == read_adapter(pointer, STORAGE).digest
    assert "tuned passed the gate: " in log
    assert champion.evaluation["gate"]["passed"]
    assert Path(champion.evaluation["source"]).name == "evaluation.json"
    assert Path(champion.evaluation["source"]).exists()
    again, log = trials.run(gated)
    assert (again, scored_again(log)) == (ExitCode.DONE, False)
    assert read_pointer(pointer, STORAGE).champion.version == 1

    gated["publish"]["champion"] = f"{pointer.removesuffix('.json')}-2.json"
    planned = plan_training(TrainConfig.model_validate(gated), brief=True)
    assert "did not become champion" in str(planned.error)
    assert "recap evaluate" in str(planned.error)


def test_a_kill_before_the_switch_loses_nothing(gated, trials, pointer):
    code, _ = trials.run(gated, BROKEN="job.training.gate:promote:kill")
    assert code < 0
    verify_folder(Path(adapter_of(gated)))
    assert not Path(pointer).exists()
    # A person does not wait for the verdict, and has another pointer.
    other = pointer.replace(".json", "-2.json")
    digest = set_champion(other, adapter_of(gated), STORAGE, "a person").champion.digest

    code, log = trials.run(gated)
    assert (code, scored_again(log)) == (ExitCode.DONE, True), log
    champion = read_pointer(pointer, STORAGE).champion
    assert (champion.version, champion.digest) == (1, digest)
    assert read_adapter(other, STORAGE).digest == digest, "it was not written again"
    report = Path(gated["output"]) / gated["run"] / "report"
    assert "<h2" in (report / "report.html").read_text()
    verify_folder(report)


def test_after_a_kill_the_adapter_is_judged_against_who_is_champion_then(gated, trials, pointer):
    gated["publish"]["gate"] = LOOSE | {"no_worse_than": ["base"], "better_than": ["champion"]}
    code, _ = trials.run(gated, BROKEN="job.training.gate:promote:kill")
    assert code < 0
    first = read_adapter(adapter_of(gated), STORAGE).digest
    other = gated | {"run": "other"}
    trials.run(other | {"publish": {"verify": False}})
    digest = read_adapter(adapter_of(other), STORAGE).digest
    switch(pointer, STORAGE, Promotion(adapter_of(other), digest, now(), "a person"), None)

    code, log = trials.run(gated)
    assert code == ExitCode.GATE, "both are the same, and better is asked"
    assert "better than the champion" in log
    assert read_pointer(pointer, STORAGE).champion.version == 1
    assert read_adapter(adapter_of(gated), STORAGE).digest == first
    folder = Path(gated["output"]) / gated["run"]
    assert json.loads((folder / "adapter" / "gate.json").read_text())["passed"]
    assert not json.loads((folder / "report" / "gate.json").read_text())["passed"], "the later one"
    assert trials.run(gated)[0] == ExitCode.GATE, "from its record"


@pytest.mark.parametrize("remedy", ["another machine", "publish.verify"])
def test_an_adapter_that_could_not_be_reloaded_waits(gated, trials, pointer, remedy, hub, reaching):
    gated["publish"]["hub"] = "org/prod"
    gated["publish"]["gate"] = LOOSE | {"no_worse_than": ["base"]}
    gated["publish"]["verify"] = True
    gated["training"] |= {"learning_rate": 0.05, "warmup_ratio": 0.0}
    code, log = trials.run(gated, INSTRUMENTS="see_no_free_memory")
    assert code == ExitCode.GATE, log
    assert "✗  reloaded by plain peft and transformers" in log
    assert "GiB of memory" in log
    assert "publish.verify: false" in log
    assert not Path(pointer).exists()
    digest = read_adapter(adapter_of(gated), STORAGE).digest
    assert not plan_training(TrainConfig.model_validate(gated), brief=True).done
    assert not hub.repositories

    # The Hub gets a copy with the last verdict. A kill before that leaves it to the next attempt.
    gated["publish"]["verify"] = remedy == "another machine"
    broken = "job.training.deliver:publish_to_hub:kill"
    assert trials.run(gated, BROKEN=broken, **reaching)[0] < 0
    code, log = trials.run(gated, **reaching)
    assert (code, scored_again(log)) == (ExitCode.DONE, False), log
    delivered = hub.repositories["models/org/prod"].files
    assert json.loads(delivered["gate.json"])["passed"]
    assert json.loads(delivered["evaluation.json"])["gate"]["passed"]
    assert b"did not pass" not in delivered["README.md"]
    entry = json.loads(delivered["manifest.json"])["files"]["README.md"]
    assert entry["size"] == len(delivered["README.md"])
    champion = read_pointer(pointer, STORAGE).champion
    assert champion.digest == digest, "it was neither trained nor written again"
    states = {"another machine": "same", "publish.verify": "not asked for"}
    assert champion.evaluation["reload"]["state"] == states[remedy]
    assert trials.run(gated)[0] == ExitCode.DONE
    by_hand = set_champion(pointer.replace(".json", "-2.json"), adapter_of(gated), STORAGE, "me")
    assert by_hand.champion.evaluation["gate"]["passed"], "by the last verdict"


@pytest.mark.parametrize("is_rolled_back", [False, True])
def test_a_kill_after_the_switch_promotes_once(gated, trials, pointer, is_rolled_back):
    before = gated | {"run": "before", "publish": {"verify": False}}
    trials.run(before)
    digest = read_adapter(adapter_of(before), STORAGE).digest
    # The gate names the base alone; the champion is compared in any case.
    gated["publish"]["gate"] = LOOSE | {"no_worse_than": ["base"]}
    switch(pointer, STORAGE, Promotion(adapter_of(before), digest, now(), "a person"), None)
    code, _ = trials.run(gated, BROKEN="job.training.run:deliver:kill")
    assert code < 0
    promoted = read_pointer(pointer, STORAGE).champion
    assert (promoted.adapter, promoted.version) == (adapter_of(gated), 2)
    if is_rolled_back:
        roll_back(read_pointer(pointer, STORAGE), STORAGE, "a person")

    code, log = trials.run(gated)
    assert code == ExitCode.DONE, log
    assert not scored_again(log), "what serves is not written again"
    champion = read_pointer(pointer, STORAGE).champion
    assert champion.version == (3 if is_rolled_back else 2)
    assert champion.adapter == adapter_of(before if is_rolled_back else gated)
    assert read_adapter(adapter_of(gated), STORAGE).digest == promoted.digest
    journal = journal_of(store_of(gated))
    assert journal["state"] == "finished"
    assert journal["facts"]["gate"]["passed"]
    assert trials.run(gated)[0] == ExitCode.DONE


def test_an_adapter_without_scores_did_not_pass(gated, trials, pointer):
    code, log = trials.run(gated, BROKEN="job.training.scoring:evaluate:raise")
    assert code == ExitCode.GATE, log
    assert "tuned did not pass the gate: it has no scores" in log
    assert "recap evaluate" in log
    assert not Path(pointer).exists()
    assert trials.run(gated)[0] == ExitCode.GATE


def test_a_pointer_that_cannot_be_written_fails_after_the_adapter_is_there(gated, trials, pointer):
    code, _ = trials.run(gated, BROKEN="job.evaluation.promotion:switch:disk")
    assert code == ExitCode.OUTPUT
    verify_folder(Path(adapter_of(gated)))
    assert trials.run(gated)[0] == ExitCode.DONE
    assert read_pointer(pointer, STORAGE).champion.version == 1


def test_an_adapter_that_does_not_pass_is_not_delivered(gated, trials, hub, reaching):
    gated["publish"] |= {"gate": STRICT, "hub": "org/prod", "merged": True}
    code, log = trials.run(gated, **reaching)
    assert code == ExitCode.GATE, log
    assert not hub.repositories
    assert not (Path(gated["output"]) / gated["run"] / "merged").exists()
    verify_folder(Path(adapter_of(gated)))
    again, log = trials.run(gated, **reaching)
    assert (again, scored_again(log)) == (ExitCode.GATE, False), "nothing is left to do"
    assert not hub.repositories

    # A person decides otherwise: what was published is pushed as it is.
    digest = read_adapter(adapter_of(gated), STORAGE).digest
    gated["publish"] = {"verify": False, "hub": "org/prod"}
    code, log = trials.run(gated, **reaching)
    assert (code, scored_again(log)) == (ExitCode.DONE, False), log
    assert set(hub.repositories) == {"models/org/prod"}
    assert read_adapter(adapter_of(gated), STORAGE).digest == digest


def test_an_adapter_that_passes_serves_though_the_hub_is_out_of_reach(
    gated, trials, pointer, hub, reaching
):
    gated["publish"]["hub"] = "org/prod"
    code, log = trials.run(gated, BROKEN="job.training.deliver:publish_to_hub:kill", **reaching)
    assert code < 0, log
    promoted = read_pointer(pointer, STORAGE).champion
    assert (promoted.adapter, promoted.version) == (adapter_of(gated), 1)

    code, log = trials.run(gated, **reaching)
    assert (code, scored_again(log)) == (ExitCode.DONE, False), log
    assert "README.md" in hub.repositories["models/org/prod"].files
    assert read_adapter(adapter_of(gated), STORAGE).digest == promoted.digest
    assert read_pointer(pointer, STORAGE).champion == promoted
    facts = journal_of(store_of(gated))["facts"]
    assert facts["published"] == {"adapter": adapter_of(gated), "hub": "org/prod"}
    assert facts["gate"]["passed"]
    assert facts["weights"]["parameters"] > 0


def test_a_verdict_without_a_pointer_is_not_made_twice(gated, trials, hub, reaching):
    gate = LOOSE | {"no_worse_than": ["base"]}
    gated["publish"] |= {"champion": None, "gate": gate, "hub": "org/prod"}
    code, _ = trials.run(gated, BROKEN="job.training.deliver:publish_to_hub:kill", **reaching)
    assert code < 0
    # Killed again, before it does anything.
    code, _ = trials.run(gated, BROKEN="job.training.run:is_published:kill", **reaching)
    assert code < 0
    code, log = trials.run(gated, **reaching)
    assert (code, scored_again(log)) == (ExitCode.DONE, False), log
    assert set(hub.repositories) == {"models/org/prod"}
    facts = journal_of(store_of(gated))["facts"]
    assert facts["gate"]["passed"]
    assert facts["weights"]["parameters"] > 0


def test_a_failed_adapter_that_a_person_promoted_ends_with_76_each_time(gated, trials, pointer):
    gated["publish"]["gate"] = STRICT
    code, _ = trials.run(gated, BROKEN="job.training.gate:note_verdict:kill")
    assert code < 0
    digest = read_adapter(adapter_of(gated), STORAGE).digest
    switch(pointer, STORAGE, Promotion(adapter_of(gated), digest, now(), "a person"), None)
    for _ in range(2):
        code, log = trials.run(gated)
        assert (code, scored_again(log)) == (ExitCode.GATE, False), log
    assert read_adapter(pointer, STORAGE).digest == digest
