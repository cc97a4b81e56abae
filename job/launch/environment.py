"""Where a run is: hardware, driver, memory, versions. Knows nothing of the job."""

import ctypes
import hashlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import job

LIBRARIES = ("recap", "torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers")
DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
# What an adapter depends on, of recap's own code: how conversations are read, rows are made of them, and trained on.
CODE = ("conversations", "training", "base_files.py", "model.py", "plain_ids.py", "prompt.py")


def describe() -> dict[str, Any]:
    """GPUs with free memory, driver and CUDA; CPU, cores and memory; versions of the libraries that matter."""
    return {"gpus": _gpus(), "cuda": _cuda(), **_cpu(), "python": platform.python_version(), "versions": versions()}


def versions() -> dict[str, str]:
    """Installed versions by name; recap's ends with a digest of its code, which changes between two releases too."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["recap"] += f"+{_own_code()}"
    return found


@cache
def _own_code() -> str:
    """The digest of the code that runs, whatever becomes of its files meanwhile: every checkpoint is told it."""
    return code_digest(Path(job.__file__).parent)


def code_digest(package: Path) -> str:
    """The first 12 hexadecimal digits of a digest over the files of the package that an adapter depends on."""
    sources = [*(package / name for name in CODE if name.endswith(".py"))]
    sources += [source for name in CODE for source in (package / name).rglob("*.py")]
    digest = hashlib.sha256()
    for source in sorted(sources):
        content = source.read_bytes()
        digest.update(f"{source.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]


def count_gpus() -> int:
    """GPUs that this machine offers to torch, which takes seconds and 200 MB to ask: not asked without any driver."""
    if not _may_have_driver():
        return 0
    import torch

    count: int = torch.cuda.device_count()
    return count


def _may_have_driver() -> bool:
    """Whether there is any sign of a driver: NVIDIA's device, of Linux or of WSL, AMD's, or CUDA's library."""
    if any(Path(device).exists() for device in DEVICES):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _gpus() -> list[dict[str, Any]]:
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found.append(
            {
                "name": properties.name,
                "capability": f"{properties.major}.{properties.minor}",
                "free_gib": round(free / 2**30, 1),
                "total_gib": round(total / 2**30, 1),
            }
        )
    return found


def _cuda() -> dict[str, str] | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return {"runtime": str(torch.version.cuda), "driver": _driver()}


def _driver() -> str:
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            return file.readline().split("Kernel Module")[-1].split()[0]
    except (OSError, IndexError):
        return "unknown"


def _cpu() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
        memory_gib: float | None = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, ValueError):
        memory_gib = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": model, "cores": cores, "memory_gib": memory_gib}
