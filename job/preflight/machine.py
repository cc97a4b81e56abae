"""Check this machine as the one that runs the job: disk, shared memory, GPU, compiler.

A laptop plans for other machines. Only where this one shows a GPU, or RECAP_GPUS is set, what it
lacks is the error that the job would end with. Elsewhere it is a warning.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from job.config.commands import EvaluateConfig, SummarizeConfig, TrainConfig
from job.errors import OutputError, RecapError
from job.gpus.findings import Findings, dotted
from job.gpus.machine import Machine
from job.gpus.required import VARIABLE, require_gpus, sign_of_gpu
from job.model.fetch import name_base_of, read_adapter
from job.model.room import MissingWeights, missing_weights
from job.preflight.checks import Check, Found, check_value
from job.storage.scratch import cache_path, work_path

Config = TrainConfig | SummarizeConfig | EvaluateConfig

GIB = 1 << 30
MIN_SHARED_BYTES = GIB  # as recap's own image is started with; docker's default is 64 MiB
BYTES_OF_A_TRAINED_WEIGHT = 4  # an adapter is trained in float32
BFLOAT16_SINCE = (8, 0)  # compute capability
ELSEWHERE = Check(
    "machine",
    "not checked: the job's machine has its own disk, driver and compiler",
    is_known=False,
)


@dataclass(frozen=True)
class Host:
    """A machine: its variables, and where its disk, shared memory and GPUs are asked."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    gpus: Machine = field(default_factory=Machine)
    shared_memory: Path = Path("/dev/shm")
    free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    total: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).total

    @property
    def is_the_jobs(self) -> bool:
        """True if this machine looks like the one that runs the job."""
        return bool(self.environment.get(VARIABLE, "").strip()) or self.has_gpu

    @property
    def has_gpu(self) -> bool:
        """True if there is a sign of a GPU that this process was given."""
        return bool(sign_of_gpu(self.environment, self.gpus))


@dataclass(frozen=True)
class _Need:
    """Bytes that will be written below a folder, and what for."""

    folder: Path
    size: int
    what: str


def machine_checks(config: Config, host: Host, trained: int | None = None) -> list[Check]:
    """Return the checks of this machine. Asks the base for its sizes; imports torch on a GPU.

    `trained` is the number of parameters that a training changes, if known.
    """
    found = [check_value("disk", lambda: check_disk(config, host, trained))[0]]
    gpu, findings = check_value("gpu", lambda: check_gpu(config, host))
    found.append(gpu)
    gpus = findings.gpus if findings else 0
    if _has_several_processes(config, gpus):
        found.append(check_value("shm", lambda: check_shared_memory(host))[0])
    if _compiles(config, gpus):
        found.append(check_value("compiler", lambda: check_compilers(config, gpus))[0])
    if host.is_the_jobs:
        return found
    return [_as_warning(each) for each in found]


def _as_warning(found: Check) -> Check:
    if found.error is None:
        return found
    return Check(found.name, f"warning: on this machine: {found.error}", is_known=False)


def check_disk(config: Config, host: Host, trained: int | None = None) -> Found[None]:
    """Compare what will be written here with what is free, by file system.

    Raise OutputError if the weights of the base, a checkpoint and the merged weights do not fit.
    """
    try:
        needs = _needs(config, trained)
    except RecapError:
        return Found("not checked: the size of the base is not known", None, is_known=False)
    if not needs:
        return Found("nothing large is written on this machine", None)

    by_device: dict[int, list[_Need]] = {}
    for need in needs:
        by_device.setdefault(need.folder.stat().st_dev, []).append(need)
    lines = []
    for same in by_device.values():
        folder = same[0].folder
        needed, free = sum(need.size for need in same), host.free(folder)
        purposes = " and ".join(need.what for need in same)
        amounts = f"{purposes}: {needed / GIB:.1f} GiB needed, {free / GIB:.1f} GiB free"
        if needed > free:
            raise OutputError(
                f"{folder}: {amounts}: make room, or set RECAP_CACHE, RECAP_WORK and HF_HOME to a "
                "larger disk"
            )
        if not os.access(folder, os.W_OK):
            raise OutputError(
                f"{folder}: cannot be written: set RECAP_CACHE, RECAP_WORK and HF_HOME to a "
                "writable folder"
            )
        lines.append(f"{folder}: {amounts}")
    return Found("\n".join(lines), None)


def _needs(config: Config, trained: int | None) -> list[_Need]:
    """Return what will be written, whose room the job requires, too."""
    missing = _missing(config)
    needs = []
    if missing is not None and missing.size:
        folder = _existing(missing.folder)
        needs.append(_Need(folder, missing.size, "weights that are not there yet"))
    if trained is not None:
        from job.training.uploads import checkpoint_bytes

        size = checkpoint_bytes(BYTES_OF_A_TRAINED_WEIGHT * trained)
        needs.append(_Need(_existing(work_path()), size, "a checkpoint"))
    if isinstance(config, TrainConfig) and config.publish.merged and missing is not None:
        from job.training.merged import merged_bytes

        size = int(merged_bytes(missing.parameters))
        needs.append(_Need(_existing(work_path()), size, "merged weights"))
    return needs


def _missing(config: Config) -> MissingWeights | None:
    """Return what is missing of the base's weights; None for a command without a model."""
    base, revision = config.model.base, config.model.revision
    if not isinstance(config, TrainConfig) and config.adapter is not None:
        base, revision = name_base_of(read_adapter(config.adapter, config.storage), config.model)
    if base is None:
        return None
    return missing_weights(base, revision, config.storage, cache_path())


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def check_gpu(config: Config, host: Host) -> Found[Findings | None]:
    """Require the GPUs as the job does, and report driver, CUDA and data type.

    Raise what `require_gpus` raises.
    """
    if not host.has_gpu and not host.is_the_jobs:
        text = "none on this machine: driver and data type are not checked"
        return Found(text, None, is_known=False)
    require_gpus(host.environment, host.gpus)
    findings = host.gpus.findings(host.environment)
    if not findings.gpus:
        return Found("none: the job computes on the CPU", findings)

    names = ", ".join(str(gpu) for gpu in findings.driver.gpus) or f"{findings.gpus}"
    lines = [f"torch {findings.torch.version} can use {names}"]
    if findings.torch.cuda and findings.driver.cuda:
        lines[0] += (
            f"; it needs CUDA {findings.torch.cuda}, and the driver supports "
            f"{dotted(findings.driver.cuda)}"
        )
    lacking = [gpu for gpu in findings.driver.gpus if gpu.capability < BFLOAT16_SINCE]
    if not lacking or config.model.dtype != "bfloat16":
        return Found("\n".join(lines), findings)
    lines.append(
        f"warning: {lacking[0]} has no bfloat16, which model.dtype names, and emulates it "
        "slowly: leave it at auto, or take a GPU of compute capability 8.0 or more"
    )
    return Found("\n".join(lines), findings, is_known=False)


def check_shared_memory(host: Host) -> Found[None]:
    """Warn of shared memory that is too small for several processes to exchange tensors."""
    folder = host.shared_memory
    if not folder.is_dir():
        return Found(f"warning: there is no {folder}", None, is_known=False)
    size = host.total(folder)
    text = f"{folder} has {size / GIB:.2f} GiB"
    if size >= MIN_SHARED_BYTES:
        return Found(text, None)
    warning = (
        f"warning: {text}, and processes on several GPUs exchange tensors through it: docker run "
        "--shm-size 1g, SharedMemoryMiB of the stack, or an emptyDir in memory"
    )
    return Found(warning, None, is_known=False)


def check_compilers(config: Config, gpus: int) -> Found[None]:
    """Find the compiler that the job calls where it runs.

    Raise ConfigError, as a training does, if it asks for one that is not there.
    """
    from job.training.compiled import check_compiler, find_compiler

    if isinstance(config, TrainConfig) and config.training.compile:
        return Found(check_compiler(has_gpu=gpus > 0), None)
    compiler = find_compiler(has_gpu=True)
    if compiler:
        return Found(f"{compiler}, with which Triton compiles for vLLM", None)
    warning = (
        "warning: none for C, with which Triton compiles for vLLM: install gcc and libc's headers"
    )
    return Found(warning, None, is_known=False)


def _has_several_processes(config: Config, gpus: int) -> bool:
    if isinstance(config, TrainConfig):
        return (config.training.processes or gpus) > 1
    return gpus > 1


def _compiles(config: Config, gpus: int) -> bool:
    if isinstance(config, TrainConfig):
        return config.training.compile
    return gpus > 0 and config.engine in ("vllm", "auto")
