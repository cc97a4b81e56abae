"""Claims about following a container, with a stand-in of docker."""

import json
import logging
from collections.abc import Callable

import pytest

from job.errors import ExitCode
from job.submit.docker import CAUSES
from job.submit.docker_container import DockerContainer
from job.submit.follow import STOPPED_BY_A_PERSON, Outcome, follow
from tests.submit.conftest import StandIn
from tests.submit.following import Moments, shown

ID = "4f1e2d3c4b5a"


@pytest.fixture
def docker(stand_in: Callable[[str], StandIn], caplog: pytest.LogCaptureFixture) -> StandIn:
    caplog.set_level(logging.INFO)
    return stand_in("docker")


def set_state(docker: StandIn, status: str, code: int = 0, **more: object) -> None:
    state = {"Status": status, "ExitCode": code, "OOMKilled": False, "Error": ""} | more
    docker.answers("inspect", ID, out=json.dumps(state))


def set_log(docker: StandIn, *lines: str, code: int = 0) -> None:
    text = "".join(f"2026-01-31T02:00:{i:02}.0Z {line}\n" for i, line in enumerate(lines))
    docker.answers("logs", ID, out=text, code=code)


def followed(*changes: Callable[[], None]) -> Outcome:
    container = DockerContainer(ID, "docker", CAUSES)
    return follow(container, f"docker stop {ID}", Moments(*changes))


def test_a_container_is_followed_to_its_own_exit_code(docker, caplog):
    set_state(docker, "running")
    set_log(docker, "one")

    def logs_more() -> None:
        set_log(docker, "one", "two")

    def ends() -> None:
        set_log(docker, "one", "two", "three")
        set_state(docker, "exited", 65)

    assert followed(logs_more, ends) == Outcome(65, "")
    shows = shown(caplog.records)
    assert [line for line in shows if line.startswith(">")] == ["> one", "> two", "> three"]
    assert [line for line in shows if not line.startswith(">")] == ["running", "exited"]


def test_a_container_that_reached_its_memory_limit_says_so(docker):
    set_log(docker, "one")
    set_state(docker, "exited", 137, OOMKilled=True)
    assert followed() == Outcome(137, "its memory limit was reached")


def test_a_removed_container_was_stopped_by_a_person(docker):
    set_log(docker, "one")
    set_state(docker, "running")

    def is_removed() -> None:
        docker.answers("inspect", err=f"Error: No such container: {ID}\n", code=1)

    assert followed(is_removed).code == STOPPED_BY_A_PERSON


def test_a_daemon_that_restarts_is_asked_again(docker):
    set_log(docker, "one")
    message = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n"
    docker.answers("inspect", err=message, code=1)
    assert followed(lambda: set_state(docker, "exited", 0)).code == ExitCode.DONE


def test_a_log_driver_that_cannot_be_read_holds_nothing_up(docker):
    message = "configured logging driver does not support reading"
    docker.answers("logs", err=f"Error response from daemon: {message}\n", code=1)
    set_state(docker, "exited", 70)
    assert followed().code == 70
