"""Claims about the machine of a plan: what it lacks is found before the job does."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import EvaluateConfig, SummarizeConfig, TrainConfig
from job.errors import ConfigError, ExitCode, OutputError
from job.gpus.findings import Torch
from job.gpus.machine import Machine
from job.preflight.checks import Check
from job.preflight.machine import Host, check_gpu, check_shared_memory, machine_checks
from job.training.uploads import checkpoint_bytes
from tests.gpus.fake_cuda import TORCH, Libcuda, machine

pytestmark = pytest.mark.usefixtures("places")

JOB = {"RECAP_GPUS": "0"}  # set where a job runs


@pytest.fixture
def training(tmp_path: Path, base_folder: Path) -> Any:
    def make(**keys: Any) -> TrainConfig:
        content = {
            "run": "r",
            "model": {"base": str(base_folder)},
            "data": {"train": "t.jsonl", "validation": "v.jsonl"},
            "output": str(tmp_path / "out"),
        }
        return TrainConfig.model_validate(content | keys)

    return make


def host(environment: dict[str, str] = JOB, free: int = 1 << 50, **more: Any) -> Host:
    """A machine without GPUs, with so many bytes free on each disk."""
    return Host(environment, more.pop("gpus", without_gpu()), free=lambda folder: free, **more)


def without_gpu() -> Machine:
    return Machine(devices=Path("/nothing"), torch=lambda: Torch("2.13", None))


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {each.name: each for each in checks}


def test_a_disk_without_room_for_the_base_ends_as_the_job_would(s3, base_folder, training):
    fill(s3, base_folder)
    config = training(model={"base": f"{s3.uri}/base"})
    size = (base_folder / "model.safetensors").stat().st_size
    well = by_name(machine_checks(config, host(free=size)))["disk"]
    assert (well.mark, "weights that are not there yet: " in well.found) == ("✓", True)
    found = by_name(machine_checks(config, host(free=size - 1)))["disk"]
    assert isinstance(found.error, OutputError)
    assert "set RECAP_CACHE, RECAP_WORK and HF_HOME to a larger disk" in found.found


def test_weights_that_are_in_the_cache_need_no_room(s3, base_folder, training, tmp_path):
    from job.model.fetch import fetch_base

    fill(s3, base_folder)
    config = training(model={"base": f"{s3.uri}/base"})
    fetch_base(config.model.base, None, config.storage, tmp_path / "cache")
    found = by_name(machine_checks(config, host(free=0)))["disk"]
    assert (found.mark, found.found) == ("✓", "nothing large is written on this machine")


def test_a_base_of_the_hub_is_measured_without_a_weight(hub, base_folder, training, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(base_folder / "none"))
    files = {path.name: path.read_bytes() for path in base_folder.iterdir() if path.is_file()}
    hub.add("org/base", files)
    found = by_name(machine_checks(training(model={"base": "org/base"}), host(free=0)))["disk"]
    assert isinstance(found.error, OutputError)
    assert not [each for each in hub.requests if "safetensors" in each.path]


def test_a_checkpoint_needs_the_room_that_a_training_requires(training):
    room = checkpoint_bytes(4 * 1000)
    well = by_name(machine_checks(training(), host(free=room), 1000))["disk"]
    found = by_name(machine_checks(training(), host(free=room - 1), 1000))["disk"]
    assert (well.error, type(found.error)) == (None, OutputError)
    assert "a checkpoint: " in found.found


def test_merged_weights_need_room_for_16_bits_each(training, base_folder):
    merged = {"merged": True}
    found = by_name(machine_checks(training(publish=merged), host(free=0)))["disk"]
    assert found.error is not None
    assert "merged weights: " in found.found


def test_a_cache_that_cannot_be_written_is_found(s3, base_folder, training, monkeypatch):
    fill(s3, base_folder)
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # root may write anywhere
    config = training(model={"base": f"{s3.uri}/base"})
    found = by_name(machine_checks(config, host()))["disk"]
    assert isinstance(found.error, OutputError)
    assert "to a writable folder" in found.found


def test_what_a_laptop_lacks_is_a_warning(training):
    found = by_name(machine_checks(training(publish={"merged": True}), host({}, free=0)))
    assert (found["disk"].mark, found["disk"].error) == ("!", None)
    assert found["disk"].found.startswith("warning: on this machine: ")
    assert found["gpu"].mark == "–"
    assert "not checked" in found["gpu"].found


def test_a_job_for_the_cpu_has_a_tick(training):
    found = check_gpu(training(), host())
    assert (found.text, found.is_known) == ("none: the job computes on the CPU", True)


def test_a_driver_that_is_too_old_ends_as_the_job_would(training, tmp_path):
    found = by_name(
        machine_checks(training(), host({"RECAP_GPUS": "1"}, gpus=with_gpu(tmp_path, (12, 4))))
    )
    assert isinstance(found["gpu"].error, ConfigError)
    assert "the driver supports CUDA 12.4, and torch needs CUDA 13.0" in found["gpu"].found


@pytest.mark.parametrize(
    ("dtype", "capability", "is_warned"),
    [("bfloat16", (7, 5), True), ("bfloat16", (8, 0), False), ("auto", (7, 5), False)],
)
def test_a_gpu_without_bfloat16_is_warned_of(
    training, base_folder, tmp_path, dtype, capability, is_warned
):
    config = training(model={"base": str(base_folder), "dtype": dtype})
    found = check_gpu(
        config, host({"RECAP_GPUS": "1"}, gpus=with_gpu(tmp_path, (13, 0), capability))
    )
    assert ("has no bfloat16" in found.text) is is_warned
    assert found.is_known is not is_warned
    assert "it needs CUDA 13.0, and the driver supports 13.0" in found.text


@pytest.mark.parametrize(("size", "is_enough"), [(64 << 20, False), (1 << 30, True)])
def test_small_shared_memory_is_warned_of(tmp_path, size, is_enough):
    found = check_shared_memory(host(shared_memory=tmp_path, total=lambda folder: size))
    assert found.is_known is is_enough
    assert ("--shm-size 1g" in found.text) is not is_enough


def test_several_processes_have_their_shared_memory_looked_at(training):
    config = training(training={"processes": 2})
    assert "shm" in by_name(machine_checks(config, host()))
    assert "shm" not in by_name(machine_checks(training(), host()))


def test_a_training_that_compiles_needs_a_compiler(training, monkeypatch):
    config = training(training={"compile": True})
    assert by_name(machine_checks(config, host()))["compiler"].mark == "✓"
    monkeypatch.setenv("PATH", "/nothing")
    found = by_name(machine_checks(config, host()))["compiler"]
    assert found.error is not None
    assert found.error.exit_code == ExitCode.CONFIG
    assert "training.compile: needs a compiler" in found.found


def test_vllm_without_a_compiler_is_warned_of(tmp_path, base_folder, monkeypatch):
    content = {"run": "r", "input": "i", "output": str(tmp_path), "engine": "vllm"}
    config = SummarizeConfig.model_validate(content | {"model": {"base": str(base_folder)}})
    monkeypatch.setenv("PATH", "/nothing")
    rented = host({"RECAP_GPUS": "1"}, gpus=with_gpu(tmp_path, (13, 0), (8, 0)))
    found = by_name(machine_checks(config, rented))["compiler"]
    assert (found.error, found.mark) == (None, "!")
    assert "install gcc" in found.found


def test_given_summaries_need_no_disk(tmp_path):
    content = {"run": "r", "input": "i", "output": str(tmp_path), "summaries": "s"}
    found = by_name(machine_checks(EvaluateConfig.model_validate(content), host(free=0)))
    assert found["disk"].mark == "✓"


def with_gpu(
    folder: Path, driver: tuple[int, int], capability: tuple[int, int] = (8, 0)
) -> Machine:
    """A machine with one GPU, which torch can use if its driver is new enough."""
    is_usable = driver >= (13, 0)
    cuda = Libcuda(driver[0] * 1000 + driver[1] * 10, [("GPU", *capability)])
    return machine(folder, replace(TORCH, gpus=int(is_usable)), cuda, "nvidia0")


def fill(s3: Any, base: Path) -> None:
    for path in base.iterdir():
        s3.client().put_object(Bucket=s3.bucket, Key=f"base/{path.name}", Body=path.read_bytes())
