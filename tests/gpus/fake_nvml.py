"""A stand-in for the module pynvml, with GPUs whose numbers and errors a test sets."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass
class FakeGpu:
    """One GPU. `lost` makes it answer nothing, as one that fell off the bus."""

    utilization: int | None = 50
    used: int = 30
    ecc_errors: int | None = 0
    slowed: int = 0
    lost: bool = False


@dataclass
class FakeNvml:
    """The functions of pynvml that recap calls; its errors and constants are the real ones."""

    gpus: list[FakeGpu]
    uuids: list[str] = field(default_factory=list)
    xids: list[tuple[int, int]] = field(default_factory=list)  # GPU and number
    has_driver: bool = True
    readings: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        if not self.has_driver:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index >= len(self.gpus):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        if uuid not in self.uuids:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return self.uuids.index(uuid)

    def nvmlDeviceGetIndex(self, device: int) -> int:
        return device

    def nvmlDeviceGetMemoryInfo(self, device: int) -> Any:
        self.readings += 1
        if self.gpus[device].lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return SimpleNamespace(used=self.gpus[device].used, total=100)

    def nvmlDeviceGetUtilizationRates(self, device: int) -> Any:
        return SimpleNamespace(gpu=supported(self.gpus[device].utilization))

    def nvmlDeviceGetTotalEccErrors(self, device: int, kind: int, since: int) -> int:
        return supported(self.gpus[device].ecc_errors)

    def nvmlDeviceGetCurrentClocksEventReasons(self, device: int) -> int:
        return self.gpus[device].slowed

    def nvmlEventSetCreate(self) -> object:
        return object()

    def nvmlDeviceRegisterEvents(self, device: int, kind: int, events: object) -> None:
        assert kind == pynvml.nvmlEventTypeXidCriticalError

    def nvmlEventSetWait_v2(self, events: object, timeout: int) -> Any:
        if not self.xids:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        device, number = self.xids.pop(0)
        return SimpleNamespace(device=device, eventData=number)


def supported(value: int | None) -> int:
    if value is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return value
