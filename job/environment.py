"""Describe where a run is: GPUs and driver, CPU and memory, versions of the libraries."""

import ctypes
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import job
from job.gpus.findings import LIBCUDA
from job.gpus.machine import read_kernel_driver
from job.gpus.required import required_gpus
from job.identity import sha256_of

LIBRARIES = (
    "recap",
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "tokenizers",
)

# Each of these exists where there is a driver: NVIDIA's on Linux and on WSL, and AMD's.
DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")

# The part of recap's code that an adapter depends on: it reads conversations, makes rows of them,
# and trains.
CODE = ("conversations", "model", "prompt", "training")


def describe() -> dict[str, Any]:
    """Return this machine's description, as JSON for `run.json`.

    It has the GPUs with their free memory and how many RECAP_GPUS required, driver and CUDA, the
    CPU with its cores and memory, and versions.
    """
    return {
        "gpus": _gpus(),
        "gpus_required": required_gpus(os.environ),
        "cuda": _cuda(),
        **_cpu(),
        "python": platform.python_version(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the installed versions of LIBRARIES by name.

    recap's ends with a digest of its code, which also changes between two releases.
    """
    found = {name: _installed_version(name) for name in LIBRARIES}
    found["recap"] += f"+{_own_code_digest()}"
    return found


# Read once: each version is in a text of metadata that takes milliseconds to parse, and a training
# asks for all of them with every checkpoint.
@cache
def _installed_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


# Computed once: every checkpoint records the digest of the code that runs, even if somebody changes
# the files meanwhile.
@cache
def _own_code_digest() -> str:
    return code_digest(Path(job.__file__).parent)


def code_digest(package: Path) -> str:
    """Return a digest of the package's CODE, as 12 hexadecimal digits."""
    sources = [package / name for name in CODE if name.endswith(".py")]
    for name in CODE:
        sources += (package / name).rglob("*.py")

    code = b""
    for source in sorted(sources):
        content = source.read_bytes()
        # The length delimits the files: moving a line from one to the next changes the digest.
        header = f"{source.relative_to(package).as_posix()} {len(content)}\n"
        code += header.encode() + content
    return sha256_of(code)[:12]


def count_gpus() -> int:
    """Return the number of GPUs that torch can use on this machine."""
    # Asking torch takes seconds and 200 MB.
    if not _may_have_driver():
        return 0
    import torch

    # The count alone comes from NVML, which also knows GPUs that CUDA cannot use.
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def _may_have_driver() -> bool:
    """Return True if there is any sign of a driver: a device file, or CUDA's library."""
    if any(Path(device).exists() for device in DEVICES):
        return True
    try:
        ctypes.CDLL(LIBCUDA)
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
    return {"runtime": str(torch.version.cuda), "driver": read_kernel_driver() or "unknown"}


def _cpu() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    memory_gib: float | None = None
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    model = line.split(":", 1)[1].strip()
                    break
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory_gib = round(memory_bytes / 2**30, 1)
    except (OSError, ValueError):
        pass

    # The cores that this process may use: a container often gets fewer than the machine has.
    cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return {"cpu": model, "cores": cores, "memory_gib": memory_gib}
