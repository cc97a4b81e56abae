"""Claims about what a run tells, to a person and to a log collector."""

import io
import json
from collections.abc import Iterator

import pytest

from job.telemetry import LOGGER, configure_logging, measured


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    handlers, level, propagate = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    yield
    LOGGER.handlers[:], LOGGER.level, LOGGER.propagate = handlers, level, propagate


def told(person: bool) -> str:
    stream = io.StringIO()
    configure_logging(stream, person)
    measured("summaries", {"records": (31, "Count"), "seconds": (1.5, "Seconds")}, run="night")
    return stream.getvalue()


def test_measured_values_are_a_line_in_the_embedded_metric_format():
    line = json.loads(told(person=False))
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "recap"
    assert directive["Dimensions"] == [[]]
    assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]} == {
        "records": "Count",
        "seconds": "Seconds",
    }
    assert all(isinstance(line[metric["Name"]], int | float) for metric in directive["Metrics"])
    assert isinstance(line["_aws"]["Timestamp"], int)
    assert line["run"] == "night"


def test_a_person_is_told_the_values_alone():
    assert told(person=True) == "summaries  run=night records=31 seconds=1.5\n"
