"""Require the GPUs that a job was given, before anything is fetched.

A job that cannot see its GPU would compute on the CPU until its deadline, and pay for the GPU. It
ends instead: with 75 where another machine may be well, with 64 where none would be.
"""

import re
from collections.abc import Mapping
from typing import NoReturn

from job.errors import ConfigError, RetryError
from job.gpus.findings import LIBCUDA, MOUNTED_DRIVER, Findings, dotted
from job.gpus.machine import Machine
from job.gpus.visible import GIVEN_DEVICES, visible_entries, visible_gpus

VARIABLE = "RECAP_GPUS"

# The oldest driver of each version of CUDA, for people: what decides is the driver's own answer.
OLDEST_DRIVERS = {12: 525, 13: 580}

WITHOUT = f"to compute on the CPU, set {VARIABLE}=0"


def required_gpus(environment: Mapping[str, str]) -> int:
    """Return how many GPUs RECAP_GPUS requires at least: 0 if it is 0, empty or not set.

    Raise ConfigError if it is no number and not `required`.
    """
    text = environment.get(VARIABLE, "").strip()
    if text == "required":
        return 1
    if not re.fullmatch(r"\d{0,4}", text):
        raise ConfigError(f"{VARIABLE} is '{text}', wanted required or a whole number")
    return int(text or 0)


def require_gpus(environment: Mapping[str, str], machine: Machine | None = None) -> None:
    """Raise an error unless torch can use the GPUs that this process was given.

    How many is in RECAP_GPUS. Without it, one is required if the scheduler named GPUs for this
    process or the machine has their device files, and they are not hidden by CUDA_VISIBLE_DEVICES.
    MIG devices that are named count each, although a process can use one only.

    Raise RetryError if another machine may be well. Raise ConfigError if none would be: torch is a
    build without CUDA, the driver is too old for it, or it has no code for the GPU.
    """
    machine = machine or Machine()
    text = environment.get(VARIABLE, "").strip()
    if text:
        wanted = required_gpus(environment)
        why = f"{VARIABLE}={text}"
    else:
        why = sign_of_gpu(environment, machine)
        wanted = 1 if why else 0
    if not wanted:
        return
    _check_not_hidden(wanted, why, environment)

    findings = machine.findings(environment)
    if findings.torch.cuda is None and findings.torch.rocm is None:
        _end_for_good(why, _remedy_of_build(findings), findings)
    usable = len(visible_gpus(environment, lambda: findings.gpus))
    if usable < wanted:
        too_old = _remedy_of_old_driver(findings)
        if too_old:
            _end_for_good(why, too_old, findings)
        found = f"torch can use {usable} of the {wanted} GPUs that this job was given"
        raise RetryError(
            _with_findings(f"{found} ({why}): {_remedy(findings)}; {WITHOUT}", findings)
        )
    without_code = _remedy_of_unknown_gpu(findings)
    if without_code:
        _end_for_good(why, without_code, findings)


def sign_of_gpu(environment: Mapping[str, str], machine: Machine) -> str:
    """Return the sign that this process was given a GPU, empty if there is none."""
    if visible_entries(environment) == []:
        return ""
    name = "NVIDIA_VISIBLE_DEVICES"
    if GIVEN_DEVICES.match(environment.get(name, "")):
        return f"{name}={environment[name]}"
    files = machine.gpu_files()
    return f"there is {files[0]}" if files else ""


def _check_not_hidden(wanted: int, why: str, environment: Mapping[str, str]) -> None:
    visible = visible_entries(environment)
    if visible is not None and len(visible) < wanted:
        value = environment["CUDA_VISIBLE_DEVICES"]
        raise ConfigError(
            f"this job must use {wanted} GPUs ({why}), but CUDA_VISIBLE_DEVICES={value} shows it "
            f"{len(visible)}: unset one of the two; {WITHOUT}"
        )


def _end_for_good(why: str, remedy: str, findings: Findings) -> NoReturn:
    text = f"this job was given a GPU ({why}) that torch cannot use: {remedy}; {WITHOUT}"
    raise ConfigError(_with_findings(text, findings))


def _with_findings(text: str, findings: Findings) -> str:
    return "\n  ".join([f"{text}. Found:", *findings.lines()])


def _remedy_of_build(findings: Findings) -> str:
    return (
        f"torch {findings.torch.version} is a build without CUDA; install one with it, as recap's "
        "image has"
    )


def _remedy_of_old_driver(findings: Findings) -> str:
    """Return the remedy if the driver is older than torch's CUDA, else an empty text.

    Within a major version of CUDA, an older driver runs what a newer toolkit built.
    """
    built = findings.torch.cuda
    driver = findings.driver.cuda
    if built is None or driver is None:
        return ""
    major = int(built.partition(".")[0])
    if driver[0] >= major:
        return ""
    oldest = f", {OLDEST_DRIVERS[major]} or newer" if major in OLDEST_DRIVERS else ""
    version = findings.files.kernel_driver
    own = f" ({version})" if version else ""
    return (
        f"the driver{own} supports CUDA {dotted(driver)}, and torch needs CUDA {built}; install a "
        f"driver for CUDA {major}{oldest}, on the machine or in its image"
    )


def _remedy_of_unknown_gpu(findings: Findings) -> str:
    """Return the remedy if torch has no code for one of the GPUs, else an empty text."""
    architectures = findings.torch.architectures
    if findings.torch.rocm or not architectures:
        return ""
    unknown = []
    for gpu in findings.driver.gpus:
        if not has_code(architectures, gpu.capability):
            unknown.append(gpu)
    if not unknown:
        return ""
    return (
        f"it has no code for {', '.join(map(str, unknown))}, only for {' '.join(architectures)}; "
        "take another kind of GPU, or hide this one by CUDA_VISIBLE_DEVICES"
    )


def has_code(architectures: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Return True if a build for these architectures runs on a GPU of this compute capability."""
    for architecture in architectures:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
        if not found:
            continue
        kind, major, minor, suffix = found.groups()
        built = (int(major), int(minor))
        if kind == "compute":
            # Intermediate code, which the driver compiles for any newer GPU.
            fits = capability >= built
        elif suffix == "a":
            fits = capability == built  # features of this one architecture
        else:
            fits = capability[0] == built[0] and capability[1] >= built[1]
        if fits:
            return True
    return False


def _remedy(findings: Findings) -> str:
    """Return what to do if no GPU, or too few, can be used on this machine."""
    driver = findings.driver
    files = findings.files
    if driver.library is None and files.mounted:
        return (
            f"the driver is mounted at {MOUNTED_DRIVER}, as on GKE, and the loader does not look "
            f"there; set LD_LIBRARY_PATH={MOUNTED_DRIVER}, as recap's image does"
        )
    if driver.library is None and files.devices:
        return (
            f"the GPU's device files are there, and the driver's {LIBCUDA} is not; let NVIDIA's "
            "container runtime mount it (Kubernetes: runtimeClassName: nvidia, docker: --gpus all) "
            "with NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        )
    if driver.library is None:
        return (
            "no GPU has reached this process, neither device files nor a driver; request one "
            "(Kubernetes: nvidia.com/gpu, and runtimeClassName: nvidia where that runtime is not "
            "the default; docker: --gpus all; AWS Batch: a resource requirement of type GPU)"
        )
    if driver.error:
        return (
            "the driver of this machine does not work; run again, on another machine if it fails "
            "here again, and look at nvidia-smi and the kernel's log on this one"
        )
    if findings.gpus:
        return "a GPU of this machine is lost or hidden; run again, or require fewer"
    return "run again, on another machine if it fails here again"
