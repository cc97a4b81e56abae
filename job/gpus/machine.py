"""Ask torch, CUDA's library, NVML and the kernel about this machine's GPUs.

Each is asked in a way that works, and reports why not, on a machine where the others are broken.
"""

import ctypes
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.gpus.findings import LIBCUDA, MOUNTED_DRIVER, Driver, Files, Findings, Gpu, Torch

# What decides which devices and libraries a process finds.
VARIABLES = (
    "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "CUDA_VISIBLE_DEVICES",
)

# Of NVIDIA's kernel module.
KERNEL_DRIVER = Path("/proc/driver/nvidia/version")

# From <cuda.h>.
COMPUTE_CAPABILITY_MAJOR = 75
COMPUTE_CAPABILITY_MINOR = 76


def read_kernel_driver(path: Path = KERNEL_DRIVER) -> str | None:
    """Return the version of NVIDIA's kernel module, None without one."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    # "Kernel Module  580.95.05", or "Open Kernel Module for x86_64  580.95.05".
    found = re.search(r"Kernel Module\b.*?\b(\d+\.[\d.]+)", text)
    return found[1] if found else "unknown"


def ask_torch() -> Torch:
    """Import torch, which takes seconds, and return what it can use."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Not `device_count`, which asks NVML: that knows GPUs which CUDA cannot use.
        is_usable = torch.cuda.is_available()
    says = "; ".join(" ".join(str(each.message).split()) for each in caught)
    return Torch(
        version=torch.__version__,
        cuda=torch.version.cuda,
        rocm=torch.version.hip,
        architectures=tuple(torch.cuda.get_arch_list()),
        gpus=torch.cuda.device_count() if is_usable else 0,
        warning=says,
    )


def ask_driver(load: Callable[[str], Any] = ctypes.CDLL) -> Driver:
    """Load CUDA's library and return its answer. Makes no context, which would take GPU memory."""
    try:
        cuda = load(LIBCUDA)
    except OSError as error:
        return Driver(error=str(error))
    library = _path_of_library(LIBCUDA)
    try:
        number = ctypes.c_int()
        version = None
        if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0 and number.value:
            version = divmod(number.value // 10, 100)
        status = cuda.cuInit(0)
        if status:
            return Driver(library, version, _error_name(cuda, status))
        return Driver(library, version, gpus=_gpus(cuda))
    except AttributeError as error:
        return Driver(library, error=f"no library of CUDA's: {error}")


def _gpus(cuda: Any) -> tuple[Gpu, ...]:
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    gpus = []
    for index in range(count.value):
        device = ctypes.c_int()
        cuda.cuDeviceGet(ctypes.byref(device), index)
        name = ctypes.create_string_buffer(256)
        cuda.cuDeviceGetName(name, len(name), device)
        capability = []
        for attribute in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR):
            number = ctypes.c_int()
            cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
            capability.append(number.value)
        gpus.append(Gpu(name.value.decode(errors="replace"), (capability[0], capability[1])))
    return tuple(gpus)


def _error_name(cuda: Any, status: int) -> str:
    """Return CUDA's name for an error of its driver, as CUDA_ERROR_NO_DEVICE."""
    name = ctypes.c_char_p()
    cuda.cuGetErrorName(status, ctypes.byref(name))
    text = name.value.decode(errors="replace") if name.value else "unknown error"
    return f"cuInit: {text} ({status})"


def _path_of_library(name: str) -> str:
    """Return where the loader found a library that is loaded."""
    stem = name.rpartition(".")[0]  # the mapped file is libcuda.so.580.95.05
    try:
        with open("/proc/self/maps", encoding="utf-8") as lines:
            for line in lines:
                path = line.split(maxsplit=5)[-1].strip()
                if path.startswith("/") and Path(path).name.startswith(stem):
                    return path
    except OSError:
        pass
    return name


def ask_nvml() -> str:
    """Return what NVML knows: the driver's version and the number of GPUs, or its error."""
    try:
        import pynvml
    except ImportError as error:
        return str(error)
    try:
        pynvml.nvmlInit()
        try:
            driver = pynvml.nvmlSystemGetDriverVersion()
            return f"driver {driver}, {pynvml.nvmlDeviceGetCount()} GPUs"
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return str(error)


@dataclass(frozen=True)
class Machine:
    """The sources of the facts."""

    devices: Path = Path("/dev")
    kernel_driver: Path = KERNEL_DRIVER
    mounted_driver: Path = MOUNTED_DRIVER
    load: Callable[[str], Any] = ctypes.CDLL
    torch: Callable[[], Torch] = ask_torch
    nvml: Callable[[], str] = ask_nvml

    def device_files(self) -> tuple[str, ...]:
        """Return the paths of NVIDIA's device files, those of single GPUs among them."""
        return tuple(sorted(str(path) for path in self.devices.glob("nvidia*")))

    def gpu_files(self) -> tuple[str, ...]:
        """Return the paths of the device files of single GPUs."""
        return tuple(path for path in self.device_files() if re.search(r"/nvidia\d+$", path))

    def findings(self, environment: Mapping[str, str]) -> Findings:
        """Ask everything, and return the answers."""
        mounted = sorted(path.name for path in self.mounted_driver.glob("libcuda.so*"))
        files = Files(self.device_files(), read_kernel_driver(self.kernel_driver), tuple(mounted))
        variables = {name: environment.get(name) for name in VARIABLES}
        return Findings(self.torch(), ask_driver(self.load), self.nvml(), files, variables)
