"""A journey through the commands for a base that a test names or makes."""

import gc
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
    "rouge_score.rouge_scorer",
    "sacrebleu.metrics",
)


@pytest.fixture(scope="session")
def libraries() -> None:
    """Load what a training needs, so that its process, a fork of this one, has it."""
    for name in LIBRARIES:
        importlib.import_module(name)
    # Else each collection in a fork would copy the pages of all these objects.
    gc.collect()
    gc.freeze()


@pytest.fixture
def travel(
    libraries: None,
    one_thread: None,
    recap: Recap,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Journey]:
    """Return a function that takes a folder with a base, and the values of a `Journey`."""
    from job.inference.transformers_engine import TransformersEngine

    place = tmp_path / "journey"
    place.mkdir()
    noting = watch_engines(place, TransformersEngine.generate)
    monkeypatch.setattr(TransformersEngine, "generate", noting)
    monkeypatch.setattr("job.launch.supervisor.supervise", run_worker_in_a_fork(place))

    def make(base: Path, style: str = "chat", settings: Any = None, **values: Any) -> Journey:
        return Journey(base, place, style, recap, settings or {}, **values)

    return make
