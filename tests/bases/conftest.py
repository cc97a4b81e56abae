"""A journey through the commands for a base that a test names or makes."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bases.journey import Journey, run_worker_in_a_fork, watch_engines
from tests.command_line import Recap

LIBRARIES = (
    "bitsandbytes",
    "peft",
    "trl",
    "job.evaluation.report",
    "job.training.run",
    "job.training.worker",
    "matplotlib.pyplot",
    "rouge_score.rouge_scorer",
)


@pytest.fixture(scope="session")
def libraries() -> None:
    """Load what a training needs, so that its process, a fork of this one, has it."""
    for name in LIBRARIES:
        importlib.import_module(name)


@pytest.fixture
def travel(
    libraries: None,
    one_thread: None,
    recap: Recap,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Journey]:
    """Return a function from a base's folder, a prompt style and settings to a `Journey`."""
    from job.inference.transformers_engine import TransformersEngine

    place = tmp_path / "journey"
    place.mkdir()
    noting = watch_engines(place, TransformersEngine.generate)
    monkeypatch.setattr(TransformersEngine, "generate", noting)
    monkeypatch.setattr("job.launch.supervisor.supervise", run_worker_in_a_fork(place))

    def make(base: Path, style: str = "chat", settings: Any = None) -> Journey:
        return Journey(base, place, style, settings or {}, recap)

    return make
