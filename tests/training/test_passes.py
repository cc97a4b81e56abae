"""Claims about the size of passes: recorded once chosen, and taken again by a resumed run."""

from typing import Any

import pytest
import torch

from job.memory.levels import Filling
from job.training.attempt import CurrentAttempt
from job.training.journal import Journal
from job.training.passes import Passes

ROW, ROWS = 100, 4
FILLING = Filling(most_rows=16, share_of_a_pass=1.0)


class Memory:
    """The recomputation of a GPU that has room for so many rows."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.level: int | None = None

    def fill(self, row_tokens: int, filling: Filling) -> int:
        self.level = 2
        return self._rows

    def choose(self, row_tokens: int, rows: int) -> None:
        self.level = 1

    def holds(self, level: int | None, row_tokens: int, rows: float) -> bool:
        return rows <= self._rows

    def take(self, level: int | None) -> None:
        self.level = level


def choose(facts: dict[str, Any], rows: int, step: int = 0, device: str = "L4") -> int:
    """Return the rows of a pass of a GPU that has room for so many."""
    memory: Any = Memory(rows)
    tokens = Passes(facts, device).choose(memory, step, ROW, ROWS, FILLING)
    assert memory.level == 2
    assert tokens is not None
    return tokens // ROW


def test_a_resumed_run_takes_the_passes_of_its_first_attempt():
    facts: dict[str, Any] = {}
    assert choose(facts, rows=9) == 9
    assert choose(facts, rows=12, step=30) == 9


@pytest.mark.parametrize(("device", "rows"), [("L4", 8), ("A100", 12)])
def test_what_does_not_fit_or_is_another_gpu_chooses_anew(device: str, rows: int) -> None:
    facts: dict[str, Any] = {}
    choose(facts, rows=9)
    assert choose(facts, rows, step=30, device=device) == rows
    assert list(facts) == ["0", "30"]


def test_a_choice_after_the_checkpoint_is_made_again():
    facts: dict[str, Any] = {}
    choose(facts, rows=9)
    Passes(facts, "L4").note(50, 4 * ROW, 2)  # memory ran out
    assert choose(dict(facts), rows=12, step=60) == 4
    assert choose(facts, rows=12, step=40) == 9
    assert list(facts) == ["0"]


def test_a_choice_is_written_at_once():
    written: list[Any] = []
    passes = Passes({}, "L4", lambda: written.append(True))
    passes.note(0, 900, None)
    assert written == [True]


def test_a_config_that_names_its_rows_has_nothing_recorded():
    facts: dict[str, Any] = {}
    memory: Any = Memory(9)
    assert Passes(facts, "L4").choose(memory, 0, ROW, ROWS, None) is None
    assert facts == {}


def test_the_next_attempt_reads_the_passes_from_run_json():
    passes = {"0": {"tokens": 900, "recomputed": 2, "device": "L4"}}
    before = Journal("a run", "failed", {}, {}, facts={"passes": passes})
    run: Any = None
    attempt = CurrentAttempt(run, step=0, committed=0)
    attempt.take_over(before)
    attempt.begin_anew()
    assert attempt.passes == passes


@pytest.mark.usefixtures("places", "one_thread")
def test_a_resumed_trainer_ends_with_the_same_sums(
    config: dict[str, Any], trainer_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config["training"] |= {"max_steps": 2, "sample_summaries": 0, "optimizer": "adamw_torch"}

    def train(facts: dict[str, Any]) -> Any:
        trainer = trainer_of(config, batch_size="auto", gradient_accumulation_steps=2)
        trainer._fills_memory = True  # as on a GPU
        trainer.passes = Passes(facts, "cpu")
        trainer.train()
        return trainer

    facts: dict[str, Any] = {}
    first = train(facts)
    monkeypatch.setattr("job.training.recomputation.fastest_pass", _never)
    second = train(facts)
    assert facts["0"]["tokens"] == first.budget.tokens == second.budget.tokens
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def _never(*arguments: Any) -> Any:
    raise AssertionError("a recorded choice was not taken")
