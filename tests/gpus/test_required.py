"""Claims about required GPUs: a job that was given one uses it or ends, and says what it found."""

import ctypes
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from job.environment import describe
from job.errors import ConfigError, ExitCode, RecapError, RetryError
from job.gpus.findings import Torch
from job.gpus.machine import Machine, ask_driver, read_kernel_driver
from job.gpus.required import has_code, require_gpus, required_gpus
from tests.command_line import Recap
from tests.gpus.fake_cuda import ARCHITECTURES, L4, TORCH, Libcuda, machine

REQUIRED = {"RECAP_GPUS": "required"}


def healthy(folder: Path, gpus: int = 1) -> Machine:
    seen = replace(TORCH, gpus=gpus)
    return machine(folder, seen, Libcuda(13000, [L4] * gpus), "nvidia0 nvidiactl")


def error_of(environment: dict[str, str], machine: Machine) -> RecapError:
    with pytest.raises(RecapError) as caught:
        require_gpus(environment, machine)
    return caught.value


def test_a_gpu_that_torch_can_use_is_enough(tmp_path: Path):
    for environment in (REQUIRED, {"RECAP_GPUS": "2"}, {}, {"NVIDIA_VISIBLE_DEVICES": "GPU-1"}):
        assert require_gpus(environment, healthy(tmp_path, gpus=2)) is None


def test_nothing_is_required_on_a_machine_without_signs(tmp_path: Path):
    bare = machine(tmp_path)
    for value in ("all", "void", "none", ""):
        assert require_gpus({"NVIDIA_VISIBLE_DEVICES": value}, bare) is None
    assert require_gpus({}, bare) is None
    assert require_gpus({"RECAP_GPUS": ""}, bare) is None


@pytest.mark.parametrize(
    "environment", [{}, {"NVIDIA_VISIBLE_DEVICES": "GPU-1234"}, {"NVIDIA_VISIBLE_DEVICES": "0,1"}]
)
def test_a_sign_of_a_gpu_requires_it(tmp_path: Path, environment: dict[str, str]):
    files = "" if environment else "nvidia0 nvidiactl"
    error = error_of(environment, machine(tmp_path, files=files))
    assert error.exit_code == ExitCode.RETRY
    assert next(iter(environment.values()), "/nvidia0") in str(error)
    assert "RECAP_GPUS=0" in str(error)


@pytest.mark.parametrize(
    "environment",
    [{"RECAP_GPUS": "0"}, {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "-1"}],
)
def test_who_declines_the_gpu_computes_without_it(tmp_path: Path, environment: dict[str, str]):
    environment["NVIDIA_VISIBLE_DEVICES"] = "GPU-1234"
    assert require_gpus(environment, machine(tmp_path, files="nvidia0")) is None


def test_a_control_file_alone_is_no_sign(tmp_path: Path):
    assert require_gpus({}, machine(tmp_path, files="nvidiactl nvidia-uvm")) is None


def test_device_files_without_libraries_name_the_runtime(tmp_path: Path):
    error = error_of(REQUIRED, machine(tmp_path, files="nvidia0 nvidiactl nvidia-uvm"))
    assert isinstance(error, RetryError)
    assert "runtimeClassName: nvidia" in str(error)
    for fact in ("nvidia-uvm", "CUDA 13.0", "NVML Shared Library Not Found", "LD_LIBRARY_PATH is"):
        assert fact in str(error)


def test_a_mounted_driver_names_the_library_path(tmp_path: Path):
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64" / "libcuda.so.1").touch()
    error = error_of(REQUIRED, machine(tmp_path, files="nvidia0"))
    assert isinstance(error, RetryError)
    assert "set LD_LIBRARY_PATH=/usr/local/nvidia/lib64" in str(error)


def test_a_machine_without_anything_names_the_request(tmp_path: Path):
    error = error_of(REQUIRED, machine(tmp_path))
    assert isinstance(error, RetryError)
    assert "nvidia.com/gpu" in str(error)


def test_a_driver_that_fails_is_named_with_its_error(tmp_path: Path):
    broken = machine(tmp_path, libcuda=Libcuda(13000, [], status=100), files="nvidia0")
    error = error_of(REQUIRED, broken)
    assert isinstance(error, RetryError)
    assert "CUDA_ERROR_NO_DEVICE (100)" in str(error)
    assert "supports CUDA 13.0" in str(error)


def test_a_driver_too_old_for_the_build_is_final(tmp_path: Path):
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX Kernel Module  570.86.15  x\n")
    old = machine(tmp_path, libcuda=Libcuda(12080, [L4]), files="nvidia0")
    error = error_of(REQUIRED, old)
    assert isinstance(error, ConfigError)
    for part in ("(570.86.15) supports CUDA 12.8", "needs CUDA 13.0", "580 or newer"):
        assert part in str(error)


def test_an_older_minor_version_is_not_too_old(tmp_path: Path):
    newer_toolkit = replace(TORCH, cuda="13.2")
    error = error_of(REQUIRED, machine(tmp_path, newer_toolkit, Libcuda(13000, [L4], 999)))
    assert isinstance(error, RetryError)


def test_a_torch_without_cuda_is_final(tmp_path: Path):
    error = error_of(REQUIRED, machine(tmp_path, Torch("2.13.0+cpu", cuda=None), files="nvidia0"))
    assert isinstance(error, ConfigError)
    assert "2.13.0+cpu is a build without CUDA" in str(error)


def test_a_gpu_older_than_the_build_is_final(tmp_path: Path):
    volta = machine(tmp_path, replace(TORCH, gpus=1), Libcuda(13000, [("Tesla V100", 7, 0)]))
    error = error_of(REQUIRED, volta)
    assert isinstance(error, ConfigError)
    assert "no code for Tesla V100 (7.0), only for sm_75" in str(error)


def test_fewer_gpus_than_required_may_be_this_machine(tmp_path: Path):
    error = error_of({"RECAP_GPUS": "4"}, healthy(tmp_path, gpus=3))
    assert isinstance(error, RetryError)
    assert "3 of the 4 GPUs" in str(error)


def test_a_gpu_that_only_nvml_knows_does_not_count(tmp_path: Path):
    lost = machine(tmp_path, replace(TORCH, gpus=2), Libcuda(13000, [L4]))
    assert isinstance(error_of({"RECAP_GPUS": "2"}, lost), RetryError)


def test_mig_devices_count_each_though_a_process_can_use_one(tmp_path: Path):
    named = {"RECAP_GPUS": "2", "NVIDIA_VISIBLE_DEVICES": "MIG-a,MIG-b"}
    assert require_gpus(named, healthy(tmp_path, gpus=1)) is None
    # A worker of a night sees its own.
    assert (
        require_gpus(
            named | {"CUDA_VISIBLE_DEVICES": "MIG-b", "RECAP_GPUS": "1"}, healthy(tmp_path)
        )
        is None
    )
    error = error_of(named | {"RECAP_GPUS": "3"}, healthy(tmp_path, gpus=1))
    assert isinstance(error, RetryError)
    assert "2 of the 3 GPUs" in str(error)


def test_amd_gpus_count_as_torch_sees_them(tmp_path: Path):
    rocm = machine(tmp_path, Torch("2.13.0", cuda=None, rocm="7.1", gpus=1))
    assert require_gpus(REQUIRED, rocm) is None
    assert isinstance(error_of({"RECAP_GPUS": "2"}, rocm), RetryError)


@pytest.mark.parametrize(("value", "wanted"), [("", "required"), ("0", "2"), ("GPU-1,-1,2", "2")])
def test_a_requirement_that_contradicts_visible_devices_is_final(
    tmp_path: Path, value: str, wanted: str
):
    environment = {"RECAP_GPUS": wanted, "CUDA_VISIBLE_DEVICES": value}
    error = error_of(environment, healthy(tmp_path, gpus=2))
    assert isinstance(error, ConfigError)
    assert f"CUDA_VISIBLE_DEVICES={value} shows it" in str(error)


def test_the_variable_is_required_or_a_number():
    values = {"": 0, "0": 0, "3": 3, " required ": 1}
    assert {text: required_gpus({"RECAP_GPUS": text}) for text in values} == values
    for wrong in ("yes", "-1", "1.5"):
        with pytest.raises(ConfigError, match="wanted required or a whole number"):
            required_gpus({"RECAP_GPUS": wrong})


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 0), False), ((7, 5), True), ((8, 9), True), ((10, 3), True), ((12, 1), True)],
)
def test_code_runs_on_its_own_generation(capability: tuple[int, int], expected: bool):
    assert has_code(ARCHITECTURES, capability) is expected


def test_code_of_one_architecture_runs_on_no_other():
    assert has_code(("sm_90a",), (9, 0))
    assert not has_code(("sm_100a",), (10, 3))
    assert has_code(("sm_100f",), (10, 3))
    assert has_code(("compute_80",), (13, 0))


def test_the_kernel_driver_is_read_in_both_forms(tmp_path: Path):
    path = tmp_path / "version"
    assert read_kernel_driver(path) is None
    for words in ("UNIX x86_64 Kernel Module", "UNIX Open Kernel Module for x86_64"):
        path.write_text(f"NVRM version: NVIDIA {words}  580.95.05  Tue Sep 23\nGCC version: 12\n")
        assert read_kernel_driver(path) == "580.95.05"


def test_a_library_that_is_not_cudas_is_an_error():
    driver = ask_driver(lambda name: ctypes.CDLL(None))
    assert driver.error is not None
    assert "cuDriverGetVersion" in driver.error


def test_the_description_of_a_run_says_what_was_required(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RECAP_GPUS", "2")
    assert describe()["gpus_required"] == 2


# torch's build decides which: with CUDA, another machine may be well.
CODE = ExitCode.CONFIG if torch.version.cuda is None else ExitCode.RETRY


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["train", "summarize", "evaluate"])
def test_a_command_ends_before_it_fetches_anything(
    recap: Recap, monkeypatch: pytest.MonkeyPatch, command: str
):
    monkeypatch.setenv("RECAP_GPUS", "required")
    ended = recap(command, f"examples/demo/{command}.yaml")  # no service answers at its places
    assert ended.code == CODE
    assert f"torch {torch.__version__}" in ended.err
    assert "device files: none" in ended.err
    assert "RECAP_GPUS=required" in ended.err


@pytest.mark.parametrize("arguments", [("plan",), ("train", "--dry-run")])
def test_a_plan_needs_no_gpu(
    recap: Recap, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
):
    monkeypatch.setenv("RECAP_GPUS", "required")
    config = tmp_path / "train.yaml"
    config.write_text(
        f"{{run: r, model: {{base: {tmp_path}/base}}, output: {tmp_path}/out,"
        f" data: {{train: {tmp_path}/data.jsonl}}}}"
    )
    ended = recap(*arguments, str(config))
    assert ended.code == ExitCode.MISSING
    assert "RECAP_GPUS" not in ended.err
