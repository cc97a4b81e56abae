"""The retry rules of the job definitions, evaluated as Batch does, for every end of an attempt."""

from dataclasses import dataclass
from typing import Any

import pytest

from job.errors import ExitCode
from tests.infra import stack

TRAININGS = ["TrainJobDefinition", "TrainNodesJobDefinition"]
NIGHT = "SummarizeJobDefinition"
JOBS = [*TRAININGS, NIGHT]
RULES = 5  # that Batch takes
SIGNALS = {"abort": 6, "kill": 9, "bus": 7, "segmentation fault": 11, "terminate": 15}
RAN = "Essential container in task exited"
NOT_STARTED = "Task failed to start"
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"


@dataclass(frozen=True)
class End:
    """The end of an attempt, as Batch's DescribeJobs shows it: None for what is missing."""

    status: str | None = RAN
    code: int | None = None
    reason: str | None = None


# Ends without an exit code. Another start may go better, but for a tag that does not exist, which
# `make deploy` refuses.
STARTS = [
    End("Host EC2 (instance i-0123456789abcdef0) terminated."),
    End(NOT_STARTED, None, "CannotPullContainerError: Error response from daemon: i/o timeout"),
    End(NOT_STARTED, None, "CannotPullContainerError: write /tmp/blob: no space left on device"),
    End(NOT_STARTED, None, "CannotPullContainerError: pull image manifest: not found"),
    End(NOT_STARTED, None, "CannotStartContainerError: could not select device driver"),
    End(NOT_STARTED, None, "CannotCreateContainerError: context canceled"),
    End(NOT_STARTED, None, "DockerTimeoutError: Could not transition to created; timed out"),
    End(NOT_STARTED, None, "ResourceInitializationError: unable to pull secrets or registry auth"),
    End("ServerException (Service: AmazonECS; Status Code: 500)"),
    End(None),
]


def rules(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.resources()[name]["Properties"]["RetryStrategy"][
        "EvaluateOnExit"
    ]
    return found


def action(name: str, end: End, star_matches_nothing: bool = False) -> str:
    """Return Batch's action after an attempt: that of the first rule that matches, else RETRY.

    A rule matches if all of its conditions do. Batch does not document whether a lone asterisk
    matches a value that is missing.
    """
    for rule in rules(name):
        values = {
            "OnStatusReason": end.status,
            "OnReason": end.reason,
            "OnExitCode": None if end.code is None else str(end.code),
        }
        conditions = [(values[key], glob) for key, glob in rule.items() if key != "Action"]
        if all(matches(value, glob, star_matches_nothing) for value, glob in conditions):
            return str(rule["Action"])
    return "RETRY"


def matches(value: str | None, glob: str, star_matches_nothing: bool) -> bool:
    if value is None:
        return star_matches_nothing and glob == "*"
    if glob.endswith("*"):
        return value.startswith(glob[:-1])
    return value == glob


@pytest.fixture(params=[False, True], ids=["missing is nothing", "missing is empty"])
def star(request):
    return request.param


@pytest.mark.parametrize("name", JOBS)
def test_the_rules_are_ones_that_batch_takes(name):
    assert 0 < len(rules(name)) <= RULES
    for rule in rules(name):
        assert rule["Action"] in ("RETRY", "EXIT")
        for key, glob in rule.items():
            text = glob.removesuffix("*")
            assert "*" not in text, "only at the end"
            if key == "OnExitCode":
                assert text.isdigit() or not text
            elif key != "Action":
                assert text.replace(" ", "").replace(".", "").replace(":", "").isalnum()


@pytest.mark.parametrize("name", JOBS)
def test_of_recaps_exit_codes_only_75_is_run_again(name, star):
    for code in ExitCode:
        if code is not ExitCode.DONE:
            wanted = "RETRY" if code is ExitCode.RETRY else "EXIT"
            assert action(name, End(code=code), star) == wanted, code


@pytest.mark.parametrize("name", JOBS)
def test_what_a_broken_image_ends_with_is_final(name, star):
    for code in (1, 125, 126, 127):
        assert action(name, End(code=code), star) == "EXIT", code


@pytest.mark.parametrize("name", JOBS)
def test_a_job_that_was_killed_from_outside_is_run_again(name, star):
    for number in (SIGNALS["kill"], SIGNALS["terminate"]):
        assert action(name, End(code=128 + number), star) == "RETRY", number
        host = End("Host EC2 (instance i-0123456789abcdef0) terminated.", 128 + number)
        assert action(name, host, star) == "RETRY", number


@pytest.mark.parametrize("name", JOBS)
def test_a_start_that_failed_and_a_lost_machine_are_run_again(name, star):
    for end in STARTS:
        assert action(name, end, star) == "RETRY", end


def test_a_crash_is_final_for_a_training_and_leads_a_night_to_the_record(star):
    for number in (SIGNALS["abort"], SIGNALS["bus"], SIGNALS["segmentation fault"]):
        end = End(code=128 + number)
        assert [action(name, end, star) for name in JOBS] == ["EXIT", "EXIT", "RETRY"], number


def test_the_memory_limit_is_final_for_a_training_and_not_for_a_night(star):
    # The first process of the container may outlive the one that was killed, and ask for more.
    for code in (128 + SIGNALS["kill"], ExitCode.RETRY):
        end = End(code=code, reason=OUT_OF_MEMORY)
        assert [action(name, end, star) for name in JOBS] == ["EXIT", "EXIT", "RETRY"], code


def test_a_night_has_attempts_enough_to_isolate_a_record():
    attempts = stack.load()["Parameters"]["Attempts"]["Default"]
    assert attempts >= 5 + 2, "five for one record (docs/outputs.md), and reclaimed machines"


def test_trainings_of_one_and_of_several_nodes_have_the_same_rules():
    assert rules(TRAININGS[0]) == rules(TRAININGS[1])
