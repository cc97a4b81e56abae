"""Claims about an adapter that cannot be scored: it is published, with the reason on every page."""

import json
import signal
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from job.config.commands import TrainConfig
from job.errors import ExitCode
from job.preflight.training import plan_training
from job.storage.folders import verify_folder
from job.training import scoring
from tests.faults.trials import adapter_digest, journal_of, store_of
from tests.training.conftest import records, write_jsonl

pytestmark = pytest.mark.usefixtures("places")
SCORES = "job.training.scoring:evaluate"
NO_CONTEST: Any = None  # memory runs out before it is looked at


@pytest.fixture
def short(config: dict[str, Any]) -> dict[str, Any]:
    """A run of two steps."""
    config["training"] |= {"max_steps": 2, "sample_summaries": 1, "save_every_steps": 1}
    return config


@pytest.fixture
def wordless(short: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The same, with validation references that have no letter."""
    lines = [record | {"summaries": ["👍 12"]} for record in records(6, first=100)]
    short["data"]["validation"] = str(write_jsonl(tmp_path / "wordless.jsonl", lines))
    return short


def files_of(config: dict[str, Any]) -> tuple[Path, str, str]:
    """Return the run's folder, its card and its report."""
    run = Path(config["output"]) / config["run"]
    verify_folder(run / "adapter")
    card = (run / "adapter" / "README.md").read_text(encoding="utf-8")
    report = run / "report" / "report.html"
    return run, card, report.read_text(encoding="utf-8") if report.exists() else ""


def test_references_without_words_are_warned_of_before_the_first_step(wordless, trials):
    planned = plan_training(TrainConfig.model_validate(wordless))
    assert planned.error is None
    assert "published without scores" in planned.text()
    code, log = trials.run(wordless)
    assert code == ExitCode.DONE, log
    first_step = log.index('"message": "step"')
    assert log.index("the adapter will be published without scores") < first_step
    run, card, report = files_of(wordless)
    assert "This adapter has no scores: the validation conversations have no reference" in card
    assert "the adapter has no scores: the validation conversations have no reference" in report
    assert not (run / "adapter" / "evaluation.json").exists()
    journal = journal_of(store_of(wordless))
    assert journal["state"] == "finished"
    assert "no word with a letter" in journal["facts"]["left_out"]["scores"]
    assert journal["attempts"][-1]["reason"].startswith("finished, without scores: DataError")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (f"{SCORES}:raise", "failed (ValueError)"),
        ("job.inference.transformers_engine:TransformersEngine.generate:raise", "(ConfigError)"),
    ],
    ids=["a metric", "the engine"],
)
def test_a_failure_while_scoring_is_on_the_adapters_card(short, trials, broken, why):
    code, log = trials.run(short, BROKEN=broken)
    assert code == ExitCode.DONE, log
    assert "the adapter is published without scores" in log
    run, card, report = files_of(short)
    assert why in card
    assert why in report
    assert "model-index" not in card
    assert "purpose" in journal_of(store_of(short))["facts"]["left_out"]["scores"]
    assert str(run) not in card


def test_a_disk_without_room_for_the_report_keeps_no_adapter_back(short, trials):
    code, log = trials.run(short, BROKEN="job.training.publish:write_report:disk")
    assert code == ExitCode.DONE, log
    run, card, _ = files_of(short)
    assert "ROUGE-L" in card
    assert (run / "adapter" / "evaluation.json").exists()
    assert not (run / "report").exists()
    assert "No space left" in journal_of(store_of(short))["facts"]["left_out"]["report"]


def test_what_fails_beside_a_trained_adapter_is_left_out(short, trials):
    ways = {
        "model_card": "raise",
        "_without_texts": "raise",
        "sync_tensorboard": "disk",
        "score_table": "raise",
    }
    broken = " ".join(f"job.training.publish:{name}:{way}" for name, way in ways.items())
    code, log = trials.run(short, BROKEN=broken)
    assert code == ExitCode.DONE, log
    adapter = Path(short["output"]) / short["run"] / "adapter"
    files = verify_folder(adapter).files
    assert "adapter_model.safetensors" in files
    assert not {"README.md", "evaluation.json"} & set(files)
    left_out = journal_of(store_of(short))["facts"]["left_out"]
    assert set(left_out) == {"card", "evaluation.json", "tensorboard"}, "and nothing else"
    for missing in left_out:
        assert f"published without its {missing}" in log
    assert "the scores could not be printed" in log


class SmallMemory:
    """An attempt at a run, the run and its config: memory runs out as soon as it is scored."""

    serve = SimpleNamespace(engine="transformers", tensor_parallel=1)

    def __init__(self):
        self.run = self.config = self
        self.notes = []

    @property
    def evaluation(self):
        raise torch.OutOfMemoryError("2 GiB on cuda:0")

    def has_crashed_too_often(self, danger):
        return False

    @contextmanager
    def noting(self, danger):
        self.notes.append(f"{danger} begun")
        yield
        self.notes.append(f"{danger} ended")


def test_memory_that_runs_out_while_scoring_is_a_reason():
    attempt = SmallMemory()
    stop = SimpleNamespace(requested=False)
    reason = scoring.score_or_reason(attempt, [], NO_CONTEST, stop)
    assert reason.why.startswith("the memory was too small")
    assert reason.detail == "OutOfMemoryError: 2 GiB on cuda:0"
    assert attempt.notes == ["scoring begun", "scoring ended"]


def test_a_stop_while_scoring_is_no_reason():
    attempt = SmallMemory()
    stop = SimpleNamespace(requested=True)
    with pytest.raises(torch.OutOfMemoryError):
        scoring.score_or_reason(attempt, [], NO_CONTEST, stop)
    assert attempt.notes == ["scoring begun"], "run.json's end resets it"


def test_a_run_killed_while_it_scores_ends_as_one_left_alone(short, trials):
    whole = short | {"run": "whole"}
    trials.finish(whole)
    assert trials.run(short, BROKEN=f"{SCORES}:kill")[0] == -signal.SIGKILL
    assert not (Path(short["output"]) / "tiny" / "adapter").exists()
    trials.finish(short)
    run, card, _ = files_of(short)
    assert "ROUGE-L" in card
    assert adapter_digest(store_of(short)) == adapter_digest(store_of(whole))
    scores = json.loads((run / "report" / "evaluation.json").read_text(encoding="utf-8"))
    alone = run.parent / "whole" / "report" / "evaluation.json"
    assert scores == json.loads(alone.read_text(encoding="utf-8"))


@pytest.mark.faults
def test_scoring_that_no_process_survives_is_given_up_after_two_tries(short, trials):
    for _ in range(2):
        assert trials.run(short, BROKEN=f"{SCORES}:kill")[0] == -signal.SIGKILL
    code, log = trials.run(short, BROKEN=f"{SCORES}:kill")
    assert code == ExitCode.DONE, log
    assert "2 attempts ended while it was scored" in files_of(short)[1]
    attempts = journal_of(store_of(short))["attempts"]
    assert [attempt["scoring"] for attempt in attempts] == [True, True, False]
