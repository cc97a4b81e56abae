"""A machine with the GPUs and the driver that a test wants."""

from pathlib import Path
from typing import Any

from job.gpus.findings import Torch
from job.gpus.machine import Machine

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
TORCH = Torch("2.13.0", cuda="13.0", architectures=ARCHITECTURES)
L4 = ("NVIDIA L4", 8, 9)


class Libcuda:
    """CUDA's library as ctypes calls it: it writes its answers where pointers point."""

    def __init__(self, version: int, gpus: list[tuple[str, int, int]], status: int = 0) -> None:
        self._version = version
        self._gpus = gpus
        self._status = status

    def cuDriverGetVersion(self, number: Any) -> int:
        number._obj.value = self._version
        return 0

    def cuInit(self, flags: int) -> int:
        return self._status

    def cuGetErrorName(self, status: int, name: Any) -> int:
        name._obj.value = b"CUDA_ERROR_NO_DEVICE"
        return 0

    def cuDeviceGetCount(self, number: Any) -> int:
        number._obj.value = len(self._gpus)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = self._gpus[device.value][0].encode()
        return 0

    def cuDeviceGetAttribute(self, number: Any, attribute: int, device: Any) -> int:
        number._obj.value = self._gpus[device.value][attribute - 74]
        return 0


def machine(
    folder: Path, torch: Torch = TORCH, libcuda: Libcuda | None = None, files: str = ""
) -> Machine:
    """Return a machine with these device files; without a libcuda, none can be loaded."""
    devices = folder / "dev"
    devices.mkdir(exist_ok=True)
    for name in files.split():
        (devices / name).touch()

    def load(name: str) -> Any:
        if libcuda is None:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return libcuda

    return Machine(
        devices=devices,
        kernel_driver=folder / "version",
        mounted_driver=folder / "lib64",
        load=load,
        torch=lambda: torch,
        nvml=lambda: "NVML Shared Library Not Found",
    )
