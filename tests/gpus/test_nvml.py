"""Claims about what is read from NVML and logged: the use of GPUs, and their faults."""

import itertools
import json
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pynvml
import pytest

from job.gpus.lines import IdleTime, Pace, gpu_lines, mean_use
from job.gpus.nvml import Nvml, Use, open_nvml
from job.telemetry import configure_logging
from tests.gpus.fake_nvml import FakeGpu, FakeNvml

AT_ONCE = Pace(reading=0.001, line=0.001)
ONLY_AT_THE_END = Pace(reading=60, line=60)


def lines_of(
    fake: FakeNvml, pace: Pace, readings: int = 0, clock: Callable[[], float] = time.monotonic
) -> list[dict[str, Any]]:
    """Return what is logged until the fake was read so often."""
    stream = StringIO()
    configure_logging(stream, person=False)
    try:
        with gpu_lines({}, lambda environment: Nvml(fake, environment), pace, clock):
            while fake.readings < readings:
                time.sleep(0.001)
    finally:
        configure_logging()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def metrics_of(line: dict[str, Any]) -> set[str]:
    return {metric["Name"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}


def test_a_line_has_the_use_of_all_gpus_as_metrics():
    fake = FakeNvml([FakeGpu(utilization=40, used=30), FakeGpu(utilization=80, used=90)])
    (line,) = lines_of(fake, ONLY_AT_THE_END)
    assert line["message"] == "gpus"
    assert (line["gpus"], line["gpu_utilization"], line["gpu_memory"]) == (2, 60, 90)
    assert metrics_of(line) == {
        "gpus",
        "gpu_utilization",
        "gpu_memory",
        "gpu_minutes",
        "gpu_idle_minutes",
    }


def test_lines_follow_each_other_until_the_block_ends():
    lines = lines_of(FakeNvml([FakeGpu()]), AT_ONCE, readings=20)
    assert len(lines) > 1
    assert {line["message"] for line in lines} == {"gpus"}


def test_the_minutes_of_all_lines_are_those_of_all_gpus():
    fake = FakeNvml([FakeGpu(), FakeGpu(), FakeGpu(lost=True)])
    ticks = itertools.count(0, 30)  # half a minute from one reading to the next
    lines = lines_of(fake, Pace(reading=0.001, line=60), readings=60, clock=lambda: next(ticks))
    minutes = [line["gpu_minutes"] for line in lines if line["message"] == "gpus"]
    half_minutes = next(ticks) / 30 - 1
    assert set(minutes[:-1]) == {3}, "the lost one is paid for, too"
    assert sum(minutes) == 3 * half_minutes / 2


def test_a_line_has_the_minutes_for_which_a_gpu_was_idle():
    fake = FakeNvml([FakeGpu(utilization=90), FakeGpu(utilization=0)])
    ticks = itertools.count(0, 60)
    lines = lines_of(fake, AT_ONCE, readings=8, clock=lambda: next(ticks))
    assert [line["gpu_idle_minutes"] for line in lines] == list(range(len(lines)))


def test_readings_become_a_mean_and_a_largest():
    readings = [Use(20, 100, 0), Use(60, 0, 1), Use(40, 50, 0), Use(10, None, 1)]
    assert mean_use(readings) == {
        "gpu_memory": (60, "Percent"),
        "gpu_utilization": (50, "Percent"),
    }
    assert mean_use([]) == {}


def test_idle_minutes_are_those_of_the_gpu_that_is_idle_for_longest():
    idle = IdleTime()
    assert idle.metrics(0) == {}, "no reading yet"
    for second, (first, second_gpu) in enumerate([(0, 90), (0, 0), (0, 0), (5, 0)]):
        idle.add([Use(30, first, 0), Use(30, second_gpu, 1)], 60.0 * second)
        found, _ = idle.metrics(60.0 * second)["gpu_idle_minutes"]
        assert found == [0, 1, 2, 2][second]
    idle.add([Use(30, 1, 1)], 240)
    assert idle.metrics(240)["gpu_idle_minutes"][0] == 0


def test_a_part_of_a_gpu_has_no_utilization():
    (line,) = lines_of(FakeNvml([FakeGpu(utilization=None)]), ONLY_AT_THE_END)
    assert line.keys().isdisjoint({"gpu_utilization", "gpu_idle_minutes"})
    assert line["gpu_memory"] == 30


def test_without_a_driver_nothing_is_logged(tmp_path: Path):
    control = tmp_path / "nvidiactl"
    fake = FakeNvml([FakeGpu()], has_driver=False)
    assert open_nvml({}, [str(control)], fake) is None
    control.touch()
    assert open_nvml({}, [str(control)], fake) is None
    fake.has_driver = True
    assert open_nvml({}, [str(control)], fake) is not None
    fake.gpus.clear()
    assert open_nvml({}, [str(control)], fake) is None


def test_a_machine_without_nvml_has_no_lines(tmp_path: Path):
    # The real module; it finds no library here.
    control = tmp_path / "nvidiactl"
    control.touch()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert open_nvml({}, [str(control)]) is None
    else:
        pytest.skip("this machine has NVML")


def test_no_gpu_is_no_error(capsys: pytest.CaptureFixture[str]):
    with gpu_lines({}, find=lambda _: None):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 3), ("0,2", 2), ("GPU-b", 1), ("GPU-b,GPU-a", 2), ("", 0), ("-1", 0), ("1,-1,2", 1)],
)
def test_gpus_that_are_hidden_do_not_count(visible: str | None, count: int):
    fake = FakeNvml([FakeGpu(), FakeGpu(), FakeGpu()], uuids=["GPU-a", "GPU-b", "GPU-c"])
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert Nvml(fake, environment).count == count


def test_a_lost_gpu_is_reported_once_and_still_paid_for():
    fake = FakeNvml([FakeGpu(), FakeGpu()])
    nvml = Nvml(fake, {})
    assert nvml.new_faults() == []
    fake.gpus[1].lost = True
    (fault,) = nvml.new_faults()
    assert (fault.gpu, fault.what) == (1, "a GPU does not answer any more")
    assert "lost" in fault.why.lower()
    assert nvml.new_faults() == []
    assert (nvml.count, len(nvml.uses())) == (2, 1)


def test_memory_errors_are_reported_when_they_grow():
    fake = FakeNvml([FakeGpu(ecc_errors=7)])
    nvml = Nvml(fake, {})
    assert nvml.new_faults() == []
    fake.gpus[0].ecc_errors = 8
    assert [fault.what for fault in nvml.new_faults()] == ["the memory of a GPU has errors"]
    assert nvml.new_faults() == []
    fake.gpus[0].ecc_errors = 9
    assert len(nvml.new_faults()) == 1


def test_a_gpu_without_ecc_has_no_faults():
    assert Nvml(FakeNvml([FakeGpu(ecc_errors=None)]), {}).new_faults() == []


def test_critical_errors_of_the_driver_are_reported_with_their_number():
    fake = FakeNvml([FakeGpu(), FakeGpu()])
    nvml = Nvml(fake, {})
    fake.xids = [(1, 79), (1, 79), (0, 48)]
    found = [(fault.gpu, fault.why.partition(":")[0]) for fault in nvml.new_faults()]
    assert found == [(1, "Xid 79"), (0, "Xid 48")]


def test_a_gpu_that_is_too_hot_is_reported():
    hot = pynvml.nvmlClocksEventReasonHwThermalSlowdown
    (fault,) = Nvml(FakeNvml([FakeGpu(slowed=hot)]), {}).new_faults()
    assert fault.why == "heat"
    idle = pynvml.nvmlClocksEventReasonGpuIdle | pynvml.nvmlClocksEventReasonSwPowerCap
    assert Nvml(FakeNvml([FakeGpu(slowed=idle)]), {}).new_faults() == []


def test_faults_are_logged_as_warnings():
    lines = lines_of(FakeNvml([FakeGpu(lost=True)]), ONLY_AT_THE_END)
    assert [line["level"] for line in lines] == ["warning", "info"]
    assert lines[0]["gpu"] == 0
    assert lines[1]["gpus"] == 0
