"""The scripts of `make submit-check`, and stand-ins of Batch, ECS and processes."""

from collections.abc import Sequence
from typing import Any

import boto3

from tests.infra import stack
from tests.infra.scripts import load_script

FOLDER = stack.TEMPLATE.parent
# In this order, since the later ones import the earlier.
SCRIPTS = (
    "deploy.py",
    "push.py",
    "submit_check_removal.py",
    "submit_check_steps.py",
    "submit_check.py",
)
ONCE = boto3.session.Config(retries={"total_max_attempts": 1})
TASK = "arn:aws:ecs:us-east-1:123456789012:task/recap_Batch_0123/4567"


deploy, _, removal, steps, submit_check = (load_script(FOLDER / each) for each in SCRIPTS)


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


def make_all(session: Any, name: str) -> None:
    """Make what a check makes, in a VPC that exists: moto cannot delete the stack's own."""
    ec2 = session.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    values = stack.GIVEN | {"VpcId": vpc, "SubnetIds": subnets[0]["SubnetId"]}
    cloudformation = session.client("cloudformation")
    for template, suffix in deploy.STACKS.items():
        cloudformation.create_stack(
            StackName=name + suffix,
            TemplateBody=stack.for_moto()[template],
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value}
                for key, value in values.items()
                if not suffix
            ],
        )
    s3, bucket = session.client("s3"), removal.bucket(session, name)
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for _ in range(2):
        s3.put_object(Bucket=bucket, Key="runs/a", Body=b"1")
    s3.delete_object(Bucket=bucket, Key="runs/a")
    session.client("sqs").create_queue(QueueName=removal.messages_queue(name))


def left(session: Any, name: str) -> list[str]:
    """Return what has the check's name. (Moto leaves the queues of jobs of a deleted stack.)"""
    stacks = session.client("cloudformation").list_stacks()["StackSummaries"]
    found = [s["StackName"] for s in stacks if s["StackStatus"] != "DELETE_COMPLETE"]
    found += [b["Name"] for b in session.client("s3").list_buckets()["Buckets"]]
    found += [
        r["repositoryName"] for r in session.client("ecr").describe_repositories()["repositories"]
    ]
    found += [g["logGroupName"] for g in session.client("logs").describe_log_groups()["logGroups"]]
    found += session.client("sqs").list_queues().get("QueueUrls", [])
    return [each for each in found if name in each]


class Without:
    """A session without some services: a request to them fails."""

    def __init__(self, session: Any, *services: str) -> None:
        self.session, self.services = session, services

    def client(self, service: str) -> Any:
        if service in self.services:
            return boto3.client(service, endpoint_url="http://127.0.0.1:9", config=ONCE)
        return self.session.client(service)
