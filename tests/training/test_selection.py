"""Claims about the selection of an adapter by what it generates, on made-up summaries."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from job.config.commands import TrainConfig
from job.config.load import load_config
from job.conversations.record import Conversation, Source, Turn
from job.errors import ConfigError, DataError, RetryError
from job.evaluation.metrics.all_metrics import metric_named
from job.evaluation.selection import SelectionCurve
from job.identity import differences
from job.inference.summaries import Summaries
from job.model.adapter_files import ADAPTER_WEIGHTS
from job.preflight.training import plan_training
from job.storage.config_file import read_config
from job.training.attempt import CurrentAttempt
from job.training.candidates import Candidate
from job.training.journal import fingerprint
from job.training.selection import choose, select_adapter
from job.training.validation import split_validation
from tests.training.conftest import records, write_jsonl

NAN = float("nan")
STEPS = (10, 20, 30)
LOSSES = (2.0, 1.5, 1.7)


def make_conversations(count: int) -> list[Conversation]:
    return [
        Conversation(f"c{n}", (Turn("customer", f"Hello {n}"),), Source("x", n), (f"Help on {n}",))
        for n in range(count)
    ]


def settings(write_config: Any, config: dict[str, Any], *overrides: str) -> Any:
    wanted = ["training.adapter_from=best_metric", *overrides]
    return load_config("train", read_config(str(write_config(config))), wanted)


@pytest.mark.parametrize(
    ("available", "wanted", "choosing", "scoring", "is_held_out"),
    [
        (200, 50, 50, 150, True),
        (60, 50, 30, 30, True),
        (19, 50, 19, 19, False),
        (5, 3, 3, 5, False),
    ],
)
def test_conversations_that_choose_do_not_score_if_there_are_enough(
    config, write_config, available, wanted, choosing, scoring, is_held_out
):
    options = settings(
        write_config, config, f"training.selection.conversations={wanted}",
        "evaluation.max_conversations=null",
    )  # fmt: skip
    split = split_validation(options, make_conversations(available))
    assert (len(split.choosing), len(split.scoring)) == (choosing, scoring)
    shared = {each.id for each in split.choosing} & {each.id for each in split.scoring}
    assert split.is_held_out == (not shared) == is_held_out
    assert split == split_validation(options, make_conversations(available)), "seeded"


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(("count", "who"), [(24, "12 others score it"), (6, "they score it, too")])
def test_a_plan_says_which_conversations_choose(config, tmp_path, count, who):
    lines = records(count, first=100)
    config["data"]["validation"] = str(write_jsonl(tmp_path / "more.jsonl", lines))
    config["training"] |= {"adapter_from": "best_metric"}
    config["evaluation"]["max_conversations"] = None
    text = plan_training(TrainConfig.model_validate(config), brief=True).text()
    assert "validation conversations chooses among at most 8 adapters" in text
    assert who in " ".join(text.split())


def test_without_a_selection_all_conversations_score(config, write_config):
    options = settings(write_config, config, "training.adapter_from=last_step")
    assert len(split_validation(options, make_conversations(30)).scoring) == 6


def test_weights_in_memory_cannot_be_scored_beside_a_later_choice(config, write_config):
    with pytest.raises(ConfigError, match="those of the last step"):
        settings(write_config, config, "evaluation.as_trained=true")


def candidates(folder: Path) -> list[Candidate]:
    made = []
    for step, loss in zip(STEPS, LOSSES, strict=True):
        path = folder / f"step-{step}" / ADAPTER_WEIGHTS
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights of %d" % step)
        made.append(Candidate(step, step / 10, loss, path))
    return made


@pytest.mark.parametrize(
    ("metric", "scores", "chosen"),
    [
        ("rougeL", [[0.1, 0.2, 0.3], [0.1, 0.2, 0.2]], 30),
        ("rougeL", [[0.1, 0.3, 0.2], [0.1, 0.1, 0.2]], 20),  # the earlier of equal ones
        ("empty", [[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], 10),  # the lower the better
        # The second conversation counts for nobody.
        ("rougeL", [[0.2, 0.1, 0.1], [0.0, NAN, 1.0], [0.2, 0.3, 0.1]], 10),
    ],
)
def test_the_best_mean_by_the_direction_of_the_metric_wins(tmp_path, metric, scores, chosen):
    curve = choose(candidates(tmp_path), np.array(scores), metric_named(metric), True, 100)
    assert curve.chosen == chosen
    assert [each.step for each in curve.candidates] == list(STEPS)
    assert SelectionCurve.from_json(json.loads(json.dumps(curve.to_json()))) == curve


def test_a_metric_without_any_value_cannot_choose(tmp_path):
    with pytest.raises(DataError, match="no conversation has a value"):
        choose(candidates(tmp_path), np.full((2, 3), NAN), metric_named("rougeL"), True, 100)


@pytest.fixture
def attempt(config: dict[str, Any], write_config: Any, tmp_path: Path) -> CurrentAttempt:
    """An attempt at the end of its training, with an adapter of the last step on disk."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / ADAPTER_WEIGHTS).write_bytes(b"weights of the last step")
    (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    examples = SimpleNamespace(scoring=make_conversations(40))
    run = SimpleNamespace(
        config=settings(write_config, config), data=SimpleNamespace(examples=examples)
    )
    return CurrentAttempt(run, step=30, committed=30)


class Select:
    """A selection whose candidates answer with texts of a test's choice."""

    def __init__(self, attempt: CurrentAttempt, folder: Path, *, stopped: bool = False) -> None:
        self.attempt = attempt
        self.adapter = folder / "adapter"
        self.served = 0
        self._candidates = candidates(folder / "candidates")
        self._stop = SimpleNamespace(requested=stopped)

    def run(self, error: Exception | None = None, first: int = 0) -> SelectionCurve:
        def serve(folders: Any, conversations: Any) -> dict[int, Summaries]:
            self.served += 1
            if error:
                raise error
            assert all((folder / "adapter_config.json").exists() for folder in folders.values())
            # The candidate of step 30 is right, the one of 20 nearly.
            texts = {10: "No idea", 20: "Help", 30: "Help on"}
            return {
                step: Summaries([texts[step]] * len(conversations), ["stop"] * len(conversations))
                for step in folders
            }

        found = self._candidates[first:]
        return select_adapter(self.attempt, found, self.adapter, serve, self._stop)

    def weights(self) -> bytes:
        return (self.adapter / ADAPTER_WEIGHTS).read_bytes()


def test_the_candidate_that_generates_best_becomes_the_adapter(attempt, tmp_path):
    select = Select(attempt, tmp_path)
    curve = select.run()
    assert curve.chosen == 30, "not 20, which has the smallest loss"
    assert (curve.conversations, curve.held_out) == (20, True)
    assert select.weights() == b"weights of 30"
    assert attempt.selection["chosen"] == attempt.published_step() == 30
    assert "leave these conversations out" in curve.sentence()


def test_an_attempt_takes_the_choice_of_one_before(attempt, tmp_path):
    select = Select(attempt, tmp_path)
    first = select.run()
    select.adapter.joinpath(ADAPTER_WEIGHTS).write_bytes(b"weights of the last step")
    assert select.run() == first
    assert select.served == 1
    assert select.weights() == b"weights of 30"
    # With other candidates it is another choice.
    assert select.run(first=1).chosen == 30
    assert select.served == 2


def test_a_selection_that_fails_falls_back_to_the_loss(attempt, tmp_path, caplog):
    select = Select(attempt, tmp_path)
    curve = select.run(ValueError("/secret/path"))
    assert curve.chosen == 20
    assert select.weights() == b"weights of 20"
    assert "/secret" not in curve.sentence()
    assert "/secret" in attempt.left_out["selection"]
    assert "the selection failed" in caplog.text
    assert select.run().chosen == 30, "a fallback binds no later attempt"


def test_without_the_engine_that_is_to_serve_the_loss_chooses(attempt, tmp_path):
    config = attempt.run.config
    serve = config.serve.model_copy(update={"engine": "vllm"})
    attempt.run.config = config.model_copy(update={"serve": serve})
    select = Select(attempt, tmp_path)
    curve = select.run()
    assert curve.chosen == 20
    assert select.served == 0
    assert "vLLM is to serve it, and is not installed" in curve.sentence()


@pytest.mark.usefixtures("places")
def test_a_missing_model_of_the_metric_is_found_before_anything_runs(
    attempt, config, write_config, tmp_path
):
    attempt.run.config = settings(
        write_config, config, "training.selection.metric=faithfulness",
        f"evaluation.faithfulness_model.model={tmp_path}/nowhere",
    )  # fmt: skip
    select = Select(attempt, tmp_path)
    assert select.run().chosen == 20
    assert select.served == 0
    assert "nowhere" in attempt.left_out["selection"]


def test_without_candidates_the_last_step_stays(attempt, tmp_path):
    select = Select(attempt, tmp_path)
    curve = select.run(first=3)
    assert curve.chosen == attempt.step == 30
    assert select.weights() == b"weights of the last step"


@pytest.mark.parametrize(
    ("error", "stopped"), [(RetryError("the GPU failed"), False), (ValueError("broken"), True)]
)
def test_what_another_attempt_may_mend_ends_the_run(attempt, tmp_path, error, stopped):
    select = Select(attempt, tmp_path, stopped=stopped)
    with pytest.raises(type(error)):
        select.run(error)
    assert select.weights() == b"weights of the last step"


def test_a_selection_that_killed_attempts_is_given_up(attempt, tmp_path, monkeypatch):
    monkeypatch.setattr(CurrentAttempt, "has_crashed_too_often", lambda *_: True)
    select = Select(attempt, tmp_path)
    assert select.run().chosen == 20
    assert select.served == 0


@pytest.mark.parametrize(
    ("adapter_from", "wanted"), [("last_step", []), ("best_metric", ["rougeL there, rouge1 here"])]
)
def test_settings_of_a_selection_identify_a_run_that_has_one(
    config, write_config, adapter_from, wanted
):
    def identity(metric: str) -> dict[str, Any]:
        overrides = [f"training.adapter_from={adapter_from}", f"training.selection.metric={metric}"]
        return fingerprint(settings(write_config, config, *overrides), {})

    found = differences(identity("rougeL"), identity("rouge1"))
    assert [each.rpartition(": ")[2] for each in found] == wanted
