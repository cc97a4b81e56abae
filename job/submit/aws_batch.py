"""`recap submit aws-batch`: a Submission → a job of a queue and a job definition.

One job, an array of workers, or several nodes at once; retries, timeout, image and roles are the job definition's. The
stack of infra/aws names both in its outputs; nothing else is known of it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from job.errors import ConfigError, MissingError, RetryError
from job.submit.aws_errors import aws_errors
from job.submit.submission import Receipt, Submission
from job.telemetry import warn

UNDER_WAY = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
ALL_NODES = "0:"
LOG_GROUP = "/aws/batch/job"  # of a job definition that names none
TRIES, CONNECT_SECONDS = 5, 10
BY_HAND = "stopped by hand"  # which the stack's JobFailed does not mail
DIGITS = 8  # of the config's digest, in the job's name


@dataclass(frozen=True)
class AwsBatch:
    """The stack whose outputs name queues and job definitions, or those themselves."""

    stack: str = "recap"
    queue: str | None = None
    job_definition: str | None = None

    def request(self, submission: Submission) -> dict[str, Any]:
        """The parameters of Batch's SubmitJob; MissingError where there is no such stack, queue or definition."""
        queue, definition = self._names(submission)
        self._check_queue(queue)
        several = self._definition(definition)["type"] == "multinode"
        if several != (submission.nodes > 1):
            raise ConfigError(
                f"job definition {definition} is for {'several nodes' if several else 'one node'}, and --nodes is "
                f"{submission.nodes}: name another definition, or another number"
            )
        overrides = {
            "command": [submission.config, *submission.arguments],
            "environment": [
                {"name": name, "value": value} for name, value in submission.environment.items()
            ],
        }
        request = {"jobName": _name(submission), "jobQueue": queue, "jobDefinition": definition}
        if several:
            each = {"targetNodes": ALL_NODES, "containerOverrides": overrides}
            return request | {
                "nodeOverrides": {"numNodes": submission.nodes, "nodePropertyOverrides": [each]}
            }
        array = {"arrayProperties": {"size": submission.workers}} if submission.workers > 1 else {}
        return request | array | {"containerOverrides": overrides}

    def submit(self, submission: Submission, request: Any) -> Receipt:
        """Submit the job; RetryError if one of the same config is under way in this queue."""
        self._check_alone(submission, request["jobQueue"])
        with aws_errors(f"submitting to {request['jobQueue']}"):
            batch = self._client("batch")
            id = batch.submit_job(**request)["jobId"]
        return self._receipt(id, request["jobDefinition"], batch.meta.region_name)

    def _names(self, submission: Submission) -> tuple[str, str]:
        """Queue and job definition: as given, else the stack's."""
        kind = "Nodes" if submission.nodes > 1 else ""
        definition = f"{submission.command.capitalize()}{kind}JobDefinition"
        outputs = {} if self.queue and self.job_definition else self._outputs()
        missing = [name for name, given in ((f"{kind}Queue", self.queue), (definition, self.job_definition))
                   if not given and name not in outputs]  # fmt: skip
        if missing:
            raise MissingError(
                f"stack {self.stack} has no output {' and no output '.join(missing)}: bring it up to date "
                "(`make deploy`), or name the queue and the definition with --queue and --job-definition"
            )
        return self.queue or outputs[f"{kind}Queue"], self.job_definition or outputs[definition]

    def _outputs(self) -> Mapping[str, str]:
        from botocore.exceptions import ClientError

        with aws_errors(f"reading stack {self.stack}"):
            try:
                found = self._client("cloudformation").describe_stacks(StackName=self.stack)[
                    "Stacks"
                ][0]
            except ClientError as error:
                if (
                    error.response["Error"]["Code"] != "ValidationError"
                ):  # which is how it says that there is none
                    raise
                raise MissingError(
                    f"stack {self.stack} is not there, in this account and region: `make deploy` makes it; name "
                    "another with --stack, or do without: --queue and --job-definition"
                ) from error
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", ())}

    def _check_queue(self, queue: str) -> None:
        with aws_errors(f"asking for queue {queue}"):
            found = self._client("batch").describe_job_queues(jobQueues=[queue])["jobQueues"]
        if not found:
            raise MissingError(
                f"queue {queue} is not there, in this account and region: check --queue, or `make deploy`"
            )
        if found[0]["state"] != "ENABLED":
            raise ConfigError(f"queue {queue} is {found[0]['state']} and takes no jobs: enable it")

    def _definition(self, name: str) -> Mapping[str, Any]:
        with aws_errors(f"asking for job definition {name}"):
            asked = {"jobDefinitions": [name]} if ":" in name else {"jobDefinitionName": name}
            found = self._client("batch").describe_job_definitions(**asked, status="ACTIVE")[
                "jobDefinitions"
            ]
        if not found:
            raise MissingError(
                f"job definition {name} is not there or no longer active: check --job-definition, or `make deploy`"
            )
        newest: Mapping[str, Any] = max(found, key=lambda definition: definition["revision"])
        return newest

    @cached_property
    def _session(self) -> Any:
        import boto3

        return boto3.session.Session()  # which reads each service's description once

    def _client(self, service: str) -> Any:
        from botocore.config import Config

        retries = {"mode": "standard", "total_max_attempts": TRIES}
        return self._session.client(
            service, config=Config(retries=retries, connect_timeout=CONNECT_SECONDS)
        )

    def _check_alone(self, submission: Submission, queue: str) -> None:
        with aws_errors(f"listing the jobs of {queue}"):
            under_way = list(_under_way(self._client("batch"), submission, queue))
        for job in under_way:
            if job["jobName"] == _name(submission):
                stop = f"aws batch terminate-job --job-id {job['jobId']} --reason '{BY_HAND}'"
                raise RetryError(
                    f"job {job['jobId']} of the same config is {job['status']} already: wait for it, or stop it and "
                    f"run again: {stop}"
                )
        if under_way:
            warn(
                "a run of this name with another config is under way",
                jobs=[job["jobId"] for job in under_way],
            )

    def _receipt(self, id: str, definition: str, region: str) -> Receipt:
        found = self._definition(definition)
        nodes = (found.get("nodeProperties") or {}).get("nodeRangeProperties") or [{}]
        container = found.get("containerProperties") or nodes[0].get("container") or {}
        options = container.get("logConfiguration", {}).get("options", {})
        group, prefix = (
            options.get("awslogs-group", LOG_GROUP),
            options.get("awslogs-stream-prefix"),
        )
        streams = ["--log-stream-name-prefix", f"{prefix}/"] if prefix else []
        there = ["--region", region]
        status = "status: status, why: statusReason, workers: arrayProperties.statusSummary, log: container.logStreamName"
        commands = {
            "state": [
                [
                    "aws",
                    "batch",
                    "describe-jobs",
                    *there,
                    "--jobs",
                    id,
                    "--query",
                    f"jobs[0].{{{status}}}",
                ]
            ],
            "follow": [["aws", "logs", "tail", group, *there, *streams, "--follow"]],
            "stop": [
                ["aws", "batch", "terminate-job", *there, "--job-id", id, "--reason", BY_HAND]
            ],
        }
        return Receipt(
            id,
            f"CloudWatch log group {group}; `state` tells this job's own stream once it runs",
            commands,
        )


def _name(submission: Submission) -> str:
    return f"{submission.name}-{submission.digest[:DIGITS]}"


def _under_way(batch: Any, submission: Submission, queue: str) -> Iterator[Mapping[str, Any]]:
    """The jobs of this run that have not ended; a filter makes Batch tell those of every status."""
    ours = re.compile(rf"{re.escape(submission.name)}-[0-9a-f]{{{DIGITS}}}")
    filters = [{"name": "JOB_NAME", "values": [f"{submission.name}-*"]}]
    for page in batch.get_paginator("list_jobs").paginate(jobQueue=queue, filters=filters):
        for job in page["jobSummaryList"]:
            if job["status"] in UNDER_WAY and ours.fullmatch(job["jobName"]):
                yield job
