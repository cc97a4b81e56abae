"""Read the use and the faults of GPUs from NVML, the library below nvidia-smi.

It needs no CUDA context, so a supervisor can read while its training hangs. All reading is allowed
to fail: a virtual GPU counts no errors, and a lost one does not answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.gpus.visible import visible_entries

# One of them exists where NVML may work: on Linux, and on WSL.
CONTROL_FILES = ("/dev/nvidiactl", "/dev/dxg")

MAX_EVENTS = 16  # of one look; more follow at the next


@dataclass(frozen=True)
class Use:
    """The use of one GPU, in percent: of its memory, and of the time in which it computes."""

    memory: float
    utilization: float | None  # None for a part of a GPU, which has no number of its own
    gpu: int  # by NVML's order


@dataclass(frozen=True)
class Fault:
    """Something wrong with a GPU. Each is reported once."""

    gpu: int  # by NVML's order, as nvidia-smi shows it
    what: str
    why: str


@dataclass
class _Gpu:
    index: int
    device: Any  # NVML's handle
    ecc_errors: int | None


class Nvml:
    """The GPUs that this process may see. `library` is the module pynvml."""

    def __init__(self, library: Any, environment: Mapping[str, str]) -> None:
        """Open NVML. Raises NVMLError where there is no driver."""
        self._library = library
        library.nvmlInit()
        self._gpus = [self._open(device) for device in self._devices(environment)]
        self._reported: set[Fault] = set()
        self._events = self._register_events()

    @property
    def count(self) -> int:
        """Return the number of GPUs, lost ones among them: they are paid for, too."""
        return len(self._gpus)

    def uses(self) -> list[Use]:
        """Return how the GPUs that answer are used."""
        uses = []
        for gpu in self._gpus:
            try:
                memory = self._library.nvmlDeviceGetMemoryInfo(gpu.device)
            except self._library.NVMLError:
                continue  # `new_faults` reports it
            rates = self._ask(self._library.nvmlDeviceGetUtilizationRates, gpu.device)
            share = 100 * memory.used / memory.total if memory.total else 0.0
            uses.append(Use(share, None if rates is None else float(rates.gpu), gpu.index))
        return uses

    def new_faults(self) -> list[Fault]:
        """Return the faults that were not returned before."""
        found = self._critical_errors()
        for gpu in self._gpus:
            found += self._faults_of(gpu)
        new = [fault for fault in dict.fromkeys(found) if fault not in self._reported]
        self._reported.update(new)
        return new

    def _faults_of(self, gpu: _Gpu) -> list[Fault]:
        nvml = self._library
        try:
            nvml.nvmlDeviceGetMemoryInfo(gpu.device)
        except nvml.NVMLError as error:
            return [Fault(gpu.index, "a GPU does not answer any more", str(error))]

        found = []
        errors = self._ecc_errors(gpu.device)
        if errors is not None and errors > (gpu.ecc_errors or 0):
            gpu.ecc_errors = errors
            why = f"{errors} uncorrected ECC errors since the driver was loaded"
            found.append(Fault(gpu.index, "the memory of a GPU has errors", why))

        reasons = self._ask(nvml.nvmlDeviceGetCurrentClocksEventReasons, gpu.device) or 0
        slowed = {
            "heat": nvml.nvmlClocksEventReasonHwThermalSlowdown,
            "the power supply": nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
        }
        for why, bit in slowed.items():
            if reasons & bit:
                found.append(Fault(gpu.index, "a GPU is slowed down by its hardware", why))
        return found

    def _critical_errors(self) -> list[Fault]:
        """Return the driver's critical errors (Xid) since the last look."""
        nvml = self._library
        found: list[Fault] = []
        while self._events is not None and len(found) < MAX_EVENTS:
            # Raises NVMLError_Timeout if there is none.
            event = self._ask(nvml.nvmlEventSetWait_v2, self._events, 0)
            if event is None:
                break
            index = self._ask(nvml.nvmlDeviceGetIndex, event.device)
            why = f"Xid {event.eventData}: NVIDIA's list of Xid errors says what it means"
            found.append(Fault(-1 if index is None else index, "the driver reports an error", why))
        return found

    def _devices(self, environment: Mapping[str, str]) -> list[Any]:
        """Return NVML's handles of the GPUs that CUDA_VISIBLE_DEVICES names, or of all."""
        nvml = self._library
        entries = visible_entries(environment)
        if entries is None:
            entries = [str(index) for index in range(nvml.nvmlDeviceGetCount())]
        devices = []
        for entry in entries:
            # CUDA's order is NVML's where the GPUs of a machine are alike.
            if entry.isdigit():
                device = self._ask(nvml.nvmlDeviceGetHandleByIndex, int(entry))
            else:
                device = self._ask(nvml.nvmlDeviceGetHandleByUUID, entry)
            if device is not None:
                devices.append(device)
        return devices

    def _open(self, device: Any) -> _Gpu:
        index = self._ask(self._library.nvmlDeviceGetIndex, device)
        return _Gpu(-1 if index is None else index, device, self._ecc_errors(device))

    def _ecc_errors(self, device: Any) -> int | None:
        nvml = self._library
        errors: int | None = self._ask(
            nvml.nvmlDeviceGetTotalEccErrors,
            device,
            nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            nvml.NVML_VOLATILE_ECC,
        )
        return errors

    def _register_events(self) -> Any:
        """Ask for critical errors from now on; return the set of events, None if refused."""
        nvml = self._library
        events = self._ask(nvml.nvmlEventSetCreate)
        if events is not None:
            for gpu in self._gpus:
                kind = nvml.nvmlEventTypeXidCriticalError
                self._ask(nvml.nvmlDeviceRegisterEvents, gpu.device, kind, events)
        return events

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return NVML's answer, None if it has none."""
        try:
            return function(*arguments)
        except self._library.NVMLError:
            return None


def open_nvml(
    environment: Mapping[str, str],
    control_files: Sequence[str] = CONTROL_FILES,
    library: Any = None,
) -> Nvml | None:
    """Return the GPUs that this process may see, None if there is none or no NVML."""
    if not any(Path(name).exists() for name in control_files):
        return None
    if library is None:
        import pynvml

        library = pynvml
    try:
        nvml = Nvml(library, environment)
    except library.NVMLError:
        return None
    return nvml if nvml.count else None
