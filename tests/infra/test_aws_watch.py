"""Claims about metrics, dashboard and saved queries, on lines that recap writes."""

import inspect
import json
import re
from types import SimpleNamespace
from typing import Any, get_args

import pynvml
import pytest

from job.config.commands import SummarizeConfig
from job.conversations.record import RejectReason
from job.gpus import nvml
from job.gpus.lines import Pace, gpu_lines
from job.gpus.nvml import Nvml
from job.summarization.summarize import summarize
from job.telemetry import configure_logging, log_metrics
from tests.gpus.fake_nvml import FakeGpu, FakeNvml
from tests.infra import stack
from tests.infra.cloudwatch import ask, calculate, is_matched, metrics_of
from tests.stand_in import StandInEngine, stand_in

STREAM = "summarize/default/0123456789abcdef0123456789abcdef"
REASONS: tuple[str, ...] = get_args(RejectReason)
# Of https://docs.aws.amazon.com/batch/latest/userguide/using_cloudwatch_metrics.html
BATCH = {
    "JobsMovedToRunnable",
    "JobsMovedToRunning",
    "JobsMovedToSucceeded",
    "JobsMovedToFailed",
    "JobsRetried",
    "JobAttemptRunnableToStartingDuration",
}


def filters() -> list[dict[str, Any]]:
    return [r for r in stack.watching().values() if r["Type"] == "AWS::Logs::MetricFilter"]


def query(name: str) -> str:
    return str(stack.watching()[name]["Properties"]["QueryString"])


def dashboard() -> dict[str, Any]:
    body: dict[str, Any] = json.loads(
        stack.watching(Night="on")["Dashboard"]["Properties"]["DashboardBody"]
    )
    return body


@pytest.fixture
def night(tmp_path, base_folder, places, one_thread, capsys):
    """The log of a night of three records, one of which has nothing to summarize."""
    turns = [{"role": "customer", "text": "My phone is dead."}]
    records = [{"id": "a", "turns": turns}, {"id": "b", "turns": turns}, {"id": "c"}]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    config = {
        "run": "nightly-2026-01-31",
        "input": str(source),
        "output": str(tmp_path / "out"),
        "model": {"base": str(base_folder)},
        "limits": {"max_reject_fraction": 1},
        "cost_per_hour": 3.6e6,  # a thousand a second, so that rounding leaves something
    }
    configure_logging(person=False)
    summarize(SummarizeConfig.model_validate(config), stand_in(StandInEngine()))
    return capsys.readouterr().err.splitlines()


def lines_of_gpus(
    capsys: pytest.CaptureFixture[str], *gpus: FakeGpu, broken: FakeGpu | None = None
) -> list[str]:
    """Return what a job with these GPUs logs until it ends, a moment later.

    In that moment, the last GPU becomes `broken`.
    """
    configure_logging(person=False)
    fake = FakeNvml(list(gpus))
    found = Nvml(fake, {})
    if broken:
        fake.gpus[-1] = broken
    with gpu_lines({}, find=lambda _: found, pace=Pace(reading=60, line=60)):
        pass
    return capsys.readouterr().err.splitlines()


def line_of_training(capsys: pytest.CaptureFixture[str], step: int) -> str:
    """Return the line of a training after a minute with 5,120 tokens a second."""
    from job.training.callbacks import LogMetrics

    configure_logging(person=False)
    seconds = [0.0]
    callback = LogMetrics(lambda: seconds[0])
    state = SimpleNamespace(global_step=step, max_steps=900, num_input_tokens_seen=0)
    callback.on_train_begin(None, state, None)
    callback.on_log(None, state, None, {"loss": 1.25})
    seconds[0] = 60
    state.num_input_tokens_seen = 60 * 5120
    callback.on_step_end(None, state, None)
    return capsys.readouterr().err.strip()


def test_a_night_becomes_its_metrics(night):
    (found,) = [metrics for metrics in (metrics_of(filters(), line) for line in night) if metrics]
    counts = {
        name: found.pop(f"night_{name}") for name in ("records", "rejects", "skipped", "good")
    }
    assert counts == {"records": 3, "rejects": 1, "skipped": 0, "good": 1}
    assert found.pop("night_rejects_invalid_record") == 1
    assert found.pop("night_tokens_per_second") > 0
    assert found.pop("night_cost") > 0
    assert found == {}, "reasons that did not occur have no value"


def test_each_reason_of_a_reject_has_its_metric_query_and_color(capsys):
    fields = {"records": 9.0} | {f"rejects_{reason}": 1.0 for reason in REASONS}
    configure_logging(person=False)
    counts = {name: (value, "Count") for name, value in fields.items()}
    log_metrics("summaries", counts, run="nightly-2026-01-31", state="too_many_rejects")
    line = capsys.readouterr().err.strip()
    expected = {f"night_rejects_{reason}" for reason in REASONS}
    assert metrics_of(filters(), line).keys() == expected | {"night_records"}, "no good night"
    assert expected <= {name for _, name, _ in shown()}
    assert {f"rejects_{reason}" for reason in REASONS} <= set(
        re.findall(r"\w+", query("RejectsQuery"))
    )


def test_lines_of_gpus_become_metrics(capsys):
    (line,) = lines_of_gpus(capsys, FakeGpu(utilization=80, used=61), FakeGpu(utilization=95))
    found = metrics_of(filters(), line)
    assert found.pop("gpu_minutes") >= 0
    assert found == {"gpu_utilization": 87.5, "gpu_memory": 61, "gpu_idle_minutes": 0}


@pytest.mark.parametrize(
    ("broken", "count"),
    [
        (FakeGpu(lost=True), 1),
        (FakeGpu(ecc_errors=2), 1),
        (FakeGpu(slowed=pynvml.nvmlClocksEventReasonHwThermalSlowdown), None),
    ],
    ids=["lost", "memory", "only slow"],
)
def test_faults_of_gpus_are_counted(capsys, broken, count):
    fault, use = lines_of_gpus(capsys, FakeGpu(), FakeGpu(), broken=broken)
    assert metrics_of(filters(), fault) == ({"gpu_faults": count} if count else {})
    assert "gpu_faults" not in metrics_of(filters(), use)


def test_each_fault_that_is_counted_is_one_that_recap_logs():
    pattern = stack.watching()["GpuFaults"]["Properties"]["FilterPattern"]
    counted = re.findall(r'"([^"]+)"', pattern)
    assert len(counted) == 3
    assert all(f'"{message}"' in inspect.getsource(nvml) for message in counted)


def test_lines_of_trainings_become_metrics(capsys):
    assert metrics_of(filters(), line_of_training(capsys, step=40)) == {
        "training_loss": 1.25,
        "training_tokens_per_second": 5120,
    }


def test_nights_of_another_name_and_other_lines_are_not_counted():
    pattern = stack.watching()["NightRecords"]["Properties"]["FilterPattern"]
    assert is_matched(pattern, '{"message": "summaries", "run": "nightly-2026-01-31"}')
    assert not is_matched(pattern, '{"message": "summaries", "run": "support-eval"}')
    assert not is_matched(pattern, '{"message": "summarized", "run": "nightly-2026-01-31"}')
    assert not is_matched(pattern, "error: nightly-2026-01-31 cannot be read")
    with pytest.raises(ValueError, match="not understood"):
        is_matched("{ $.records > 3 }", "{}")


def test_queries_find_a_night_its_rejects_and_its_chunks(night):
    lines = {STREAM: night, "train/default/other": ['{"message": "step"}']}
    (row,) = ask(query("NightsQuery"), lines)
    assert (row["run"], row["state"], row["records"]) == ("nightly-2026-01-31", "finished", 3)
    assert None not in [row[name] for name in ("gpu_seconds", "output_tokens_per_second", "cost")]
    (row,) = ask(query("RejectsQuery"), lines)
    assert (row["rejects"], row["rejects_invalid_record"]) == (1, 1)
    (row,) = ask(query("RejectedQuery"), lines)
    assert (row["reason"], row["@logStream"]) == ("invalid_record", STREAM)
    (row,) = ask(query("ChunksQuery"), lines)
    assert (row["number"], row["records"], row["seconds"] > 0) == (0, 3, True)


def test_queries_find_errors_and_one_jobs_log(recap, tmp_path, night):
    failed = recap("summarize", tmp_path / "none.yaml")
    ended = failed.err.splitlines()
    lines = {"train/default/other": ended, STREAM: night}
    (row,) = ask(query("EndsQuery"), lines)
    assert row["@message"].startswith("error: ")
    found = ask(query("ErrorsQuery"), lines)
    assert {row["@logStream"] for row in found} == set(lines), "the rejected record is a warning"
    one = query("JobQuery").replace("train/default/TASK", STREAM)
    assert [row["@message"] for row in ask(one, lines)] == night


def test_queries_add_up_gpus_and_trainings_by_job(capsys):
    busy = lines_of_gpus(capsys, FakeGpu(utilization=88, used=61))
    (line,) = lines_of_gpus(capsys, FakeGpu(utilization=0))
    idle = [json.dumps(json.loads(line) | {"gpu_idle_minutes": minutes}) for minutes in (61, 62)]
    steps = [line_of_training(capsys, step) for step in (40, 80)]
    lines = {"busy": [*busy, *steps], "idle": idle}
    first, second = ask(query("GpusQuery"), lines)
    assert (first["@logStream"], first["utilization"], first["idle_minutes"]) == ("idle", 0, 62)
    assert (second["utilization"], second["memory"], second["idle_minutes"]) == (88, 61, 0)
    assert second["gpu_hours"] >= 0
    (row,) = ask(query("TrainingsQuery"), lines)
    assert (row["step"], row["steps"], row["tokens_per_second"]) == (80, 900, 5120)


def shown() -> set[tuple[str, str, tuple[str, ...]]]:
    """Each metric of the dashboard: namespace, name and dimensions."""
    return {
        (entry[0], entry[1], tuple(part for part in entry[2:] if isinstance(part, str)))
        for widget in dashboard()["widgets"]
        if widget["type"] == "metric"
        for entry in widget["properties"]["metrics"]
        if isinstance(entry[0], str)
    }


def test_the_dashboard_shows_metrics_that_somebody_makes():
    made = {each["Properties"]["MetricTransformations"][0]["MetricName"] for each in filters()}
    queues = {queue.rpartition("/")[2] for queue in queues_of_the_stack()}
    for namespace, name, dimensions in shown():
        if namespace == "AWS/Batch":
            assert name in BATCH
            assert (dimensions[0], dimensions[1] in queues) == ("JobQueueName", True)
        else:
            assert (namespace, name in made, dimensions) == ("recap/recap", True, ()), name
    assert made <= {name for _, name, _ in shown()}, "and each metric that a filter makes"
    for queue in queues:
        assert ("AWS/Batch", "JobsMovedToFailed", ("JobQueueName", queue)) in shown()


def queues_of_the_stack() -> set[str]:
    return {value for name, value in stack.outputs().items() if name.endswith("Queue")}


@pytest.mark.parametrize(
    ("good_nights", "hours"), [([10, 34], 26), ([34], 26), ([59], 1), ([60], 0), ([], None)]
)
def test_the_dashboard_shows_the_age_of_the_last_good_night(good_nights, hours):
    """Of 60 hours, in which nothing but good nights made points."""
    (widget,) = (w["properties"] for w in dashboard()["widgets"] if "good" in str(w))
    options = [entry[-1] for entry in widget["metrics"]]
    (expression,) = (each["expression"] for each in options if "expression" in each)
    assert (widget["period"], options[1]["id"], options[1]["stat"]) == (3600, "good", "Sum")
    assert widget["metrics"][1][1] == "night_good"
    good = [1.0 if hour in good_nights else None for hour in range(61)]
    times = [3600.0 * hour for hour in range(61)]
    assert calculate(expression, {"good": good}, times)[-1] == hours


def test_expressions_of_the_dashboard_use_metrics_of_their_widget():
    for widget in dashboard()["widgets"]:
        entries = widget["properties"].get("metrics", [])
        options = [entry[-1] for entry in entries if isinstance(entry[-1], dict)]
        ids = {each["id"] for each in options if "id" in each}
        for each in options:
            used = set(re.findall(r"\b[a-z]\w*", each.get("expression", "")))
            assert used <= ids, each
            assert each.get("visible", True) or each["id"] in " ".join(
                other.get("expression", "") for other in options
            )


def test_widgets_lie_beside_each_other():
    taken: dict[tuple[int, int], str] = {}
    for widget in dashboard()["widgets"]:
        title = widget["properties"].get("title", "text")
        assert widget["x"] + widget["width"] <= 24, title
        for x in range(widget["x"], widget["x"] + widget["width"]):
            for y in range(widget["y"], widget["y"] + widget["height"]):
                assert taken.setdefault((x, y), title) == title
    assert len(taken) == 24 * (1 + max(y for _, y in taken)), "without a gap"


def test_the_dashboard_has_every_alarm_that_sends_messages():
    (widget,) = (each for each in dashboard()["widgets"] if each["type"] == "alarm")
    kinds = ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
    sending = {
        name
        for name, resource in stack.watching(Night="on").items()
        if resource["Type"] in kinds and "AlarmActions" in resource["Properties"]
    }
    assert {arn.rpartition(":")[2] for arn in widget["properties"]["alarms"]} == sending


def test_the_dashboard_is_of_a_stack_without_nights_too():
    body = json.loads(stack.watching()["Dashboard"]["Properties"]["DashboardBody"])
    (alarms,) = (w["properties"]["alarms"] for w in body["widgets"] if w["type"] == "alarm")
    assert len(alarms) == 4
    assert len(json.dumps(body)) < 20_000
    assert len(shown()) <= 50, "more would cost, even as one of the first three"


def test_the_dashboard_lists_the_errors_that_the_saved_query_lists():
    (widget,) = (each for each in dashboard()["widgets"] if each["type"] == "log")
    source, _, rest = widget["properties"]["query"].partition(" | ")
    assert source == "SOURCE '/recap/recap'"
    assert rest == query("ErrorsQuery").replace("\n", " ")
