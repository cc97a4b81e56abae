"""Facts about this machine's GPUs, and how they are shown to a person. `machine` collects them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LIBCUDA = "libcuda.so.1"

# Where GKE and others without NVIDIA's container runtime mount the driver's libraries.
MOUNTED_DRIVER = Path("/usr/local/nvidia/lib64")


@dataclass(frozen=True)
class Torch:
    """The installed torch: what it was built for, and whether it can use a GPU."""

    version: str
    cuda: str | None  # version of CUDA that it was built with; None if it was built without
    rocm: str | None = None  # the same for AMD's GPUs
    architectures: tuple[str, ...] = ()  # as "sm_90"
    gpus: int = 0
    warning: str = ""  # why it can use none, in its own words


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, and its compute capability."""

    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name} ({self.capability[0]}.{self.capability[1]})"


@dataclass(frozen=True)
class Driver:
    """The user's part of the driver, CUDA's library: what it supports, and its answer."""

    library: str | None = None  # its path; None if it cannot be loaded
    cuda: tuple[int, int] | None = None  # newest version of CUDA that it supports
    error: str | None = None  # why it cannot be used
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Files:
    """The mounted files: devices, the driver of the kernel, libraries of the driver."""

    devices: tuple[str, ...] = ()
    kernel_driver: str | None = None  # its version
    mounted: tuple[str, ...] = ()  # libcuda in MOUNTED_DRIVER


@dataclass(frozen=True)
class Findings:
    """All that is known about the GPUs of this machine."""

    torch: Torch
    driver: Driver
    nvml: str
    files: Files
    variables: Mapping[str, str | None]

    @property
    def gpus(self) -> int:
        """Return the number of GPUs that torch can use."""
        if not self.torch.gpus or self.torch.rocm:
            return self.torch.gpus
        # torch counts with NVML, which also knows GPUs that CUDA cannot use.
        return min(self.torch.gpus, len(self.driver.gpus))

    def lines(self) -> list[str]:
        """Return the findings as text, one line each."""
        torch = self.torch
        if torch.rocm:
            built = f"ROCm {torch.rocm}"
        elif torch.cuda:
            built = f"CUDA {torch.cuda}"
        else:
            built = "without CUDA"
        says = f": {torch.warning}" if torch.warning else ""
        lines = [f"torch {torch.version} ({built}) can use {self.gpus} GPUs{says}"]

        driver = self.driver
        found = driver.library or "not found"
        if driver.cuda:
            found += f", supports CUDA {dotted(driver.cuda)}"
        if driver.error:
            found += f": {driver.error}"
        elif driver.library:
            found += f": {', '.join(map(str, driver.gpus)) or 'no GPU'}"
        lines.append(f"{LIBCUDA}: {found}")

        lines.append(f"NVML: {self.nvml}")
        lines.append(f"driver of the kernel: {self.files.kernel_driver or 'none'}")
        lines.append(f"device files: {', '.join(self.files.devices) or 'none'}")
        lines.append(f"mounted at {MOUNTED_DRIVER}: {', '.join(self.files.mounted) or 'nothing'}")
        for name, value in self.variables.items():
            lines.append(f"{name} is {'not set' if value is None else repr(value)}")
        return lines


def dotted(version: tuple[int, int]) -> str:
    """Return a version as text."""
    return f"{version[0]}.{version[1]}"
