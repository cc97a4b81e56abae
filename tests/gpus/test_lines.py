"""Claims about who logs the use of GPUs: the process of a machine that is above all others."""

import threading
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.errors import ConfigError, ExitCode
from job.gpus.nvml import Nvml
from job.launch.outcome import Outcome
from job.launch.supervisor import run_training
from job.telemetry import configure_logging
from tests.command_line import Recap
from tests.gpus.fake_nvml import FakeGpu, FakeNvml

DONE = Outcome(ExitCode.DONE, "done")


@pytest.fixture(autouse=True)
def _two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let NVML know two GPUs, and torch none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpus = FakeNvml([FakeGpu(), FakeGpu()])
    monkeypatch.setattr("job.gpus.lines.open_nvml", lambda environment: Nvml(gpus, {}))


def while_logging(*_: Any, **__: Any) -> Outcome:
    """Stand in for the work, during which the lines are written."""
    assert "gpu lines" in {thread.name for thread in threading.enumerate()}
    return DONE


def train_config(folder: Path) -> TrainConfig:
    keys = {"run": "r", "model": {"base": "b"}, "output": str(folder), "data": {"train": "t"}}
    return TrainConfig.model_validate(keys)


@pytest.mark.usefixtures("places")
def test_a_training_logs_the_use_of_its_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("job.launch.supervisor.supervise", while_logging)
    configure_logging(person=False)
    assert run_training(train_config(tmp_path)) == DONE
    assert capsys.readouterr().err.count('"gpu_minutes": ') == 1


@pytest.mark.parametrize(
    ("workers", "work"),
    [
        ("auto", "job.summarization.summarize.summarize"),
        ("2", "job.summarization.workers.run_workers"),
    ],
)
def test_a_night_logs_the_use_of_its_gpus(
    recap: Recap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str, work: str
):
    monkeypatch.setattr(work, while_logging)
    config = tmp_path / "night.yaml"
    config.write_text(f"{{run: n, input: in, output: out, adapter: a, workers: {workers}}}")
    ended = recap("summarize", config)
    assert ended.code == ExitCode.DONE
    assert ended.err.count('"gpu_minutes": ') == 1


@pytest.mark.usefixtures("places")
def test_a_training_that_must_use_two_mig_devices_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RECAP_GPUS", "2")
    with pytest.raises(ConfigError, match="of several MIG devices CUDA gives a process one"):
        run_training(train_config(tmp_path))
