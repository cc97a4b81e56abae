"""The scripts of `make submit-check`, and stand-ins of Batch, ECS and processes."""

import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import boto3

from tests.infra import stack

FOLDER = stack.TEMPLATE.parent
SCRIPTS = ("deploy", "push", "submit_check_removal", "submit_check_steps", "submit_check")
TASK = "arn:aws:ecs:us-east-1:123456789012:task/recap_Batch_0123/4567"


def script(name: str) -> ModuleType:
    """Load a script of infra/aws, whose imports are its neighbours."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


deploy, _, removal, steps, submit_check = map(script, SCRIPTS)


class Process:
    """A process that has ended with this code."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.is_terminated = False

    def wait(self) -> int:
        return self.code

    def terminate(self) -> None:
        self.is_terminated = True


class Batch:
    """A Batch whose jobs have ended with the exit codes of their attempts."""

    def __init__(self, attempts: Sequence[int], running: bool = True) -> None:
        self.attempts = attempts
        self.submitted: list[dict[str, Any]] = []
        self.running = [{"jobId": "t", "jobName": "recap-train-demo-0123"}] if running else []
        self.stopped: list[dict[str, str]] = []

    def list_jobs(self, jobQueue: str, jobStatus: str) -> dict[str, Any]:
        assert (jobQueue, jobStatus) == ("q", "RUNNING")
        return {"jobSummaryList": self.running}

    def submit_job(self, **request: Any) -> dict[str, str]:
        self.submitted.append(request)
        return {"jobId": request["jobName"].upper()}

    def describe_jobs(self, jobs: list[str]) -> dict[str, Any]:
        (id,) = jobs
        codes = [int(id[-2:])] if id.startswith("CHECK") else self.attempts
        attempts = [{"container": {"exitCode": code}} for code in codes]
        job = {"status": "FAILED", "container": {"taskArn": TASK}, "attempts": attempts}
        return {"jobs": [job]}

    def stop_task(self, **request: str) -> None:
        self.stopped.append(request)


class Session:
    """Moto's services, and a stand-in of Batch and ECS."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def client(self, service: str) -> Any:
        return self.batch if service in ("batch", "ecs") else boto3.client(service)


def check(batch: Batch, name: str, monkeypatch: Any, **more: Any) -> Any:
    """A check of a stack that has these outputs."""
    made = steps.Check(Session(batch), name, "abc", sleep=lambda seconds: None, **more)
    outputs = {"Queue": "q", "NodesQueue": "n", "TrainJobDefinition": "d"}
    monkeypatch.setattr(steps.Check, "outputs", outputs)
    return made
