"""A container of docker that is followed. Nothing runs it again: it has one end."""

import json
from collections.abc import Iterator, Sequence
from typing import ClassVar

from job.errors import MissingError
from job.submit.follow import STOPPED_BY_A_PERSON, Line, Look, Outcome
from job.submit.log_process import LogProcess
from job.submit.tool import Cause, run_tool


class RemovedError(MissingError):
    """The container was removed."""


REMOVED = Cause(r"no such (object|container)", RemovedError, "it was removed")


class DockerContainer:
    """A container by its id, and the docker that runs it."""

    seconds_between_looks: ClassVar[float] = 1.0

    def __init__(self, id: str, docker: str, causes: Sequence[Cause]) -> None:
        self._id = id
        self._docker = docker
        self._causes = [REMOVED, *causes]
        self._log = LogProcess([docker, "logs", "--follow", "--timestamps", id], "--since")

    def look(self) -> Look:
        """Ask docker for the container's state."""
        inspect = [self._docker, "container", "inspect", "--format", "{{json .State}}", self._id]
        try:
            state = json.loads(run_tool(inspect, self._causes))
        except RemovedError:
            why = f"container {self._id} was removed"
            return Look("removed", why, Outcome(STOPPED_BY_A_PERSON, why))

        is_running = state["Status"] not in ("exited", "dead")
        if not self._log.is_complete(is_running):
            return Look(state["Status"])
        why = "its memory limit was reached" if state.get("OOMKilled") else state.get("Error", "")
        return Look(state["Status"], outcome=Outcome(state["ExitCode"], why))

    def lines(self) -> Iterator[Line]:
        """Yield the new lines of the container."""
        for text in self._log.lines():
            yield Line(text)

    def close(self) -> None:
        """End `docker logs`."""
        self._log.close()
