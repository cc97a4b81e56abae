"""Submit to AWS Batch: one job, an array of workers, or several nodes at once.

The job definition decides on retries, timeout, image and roles. Queue and definition are named by
the user, or by the outputs of the stack that infra/aws makes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from job.errors import ConfigError, ForbiddenError, MissingError
from job.preflight.checks import Check
from job.preflight.plan import ROLE
from job.submit.aws import Aws, aws_errors, is_denied
from job.submit.batch_job import BatchJob
from job.submit.hub_token import hub_checks
from job.submit.role import NotAskedError, ask_role
from job.submit.stack import NAMES_INSTEAD, Stack, read_stack
from job.submit.submission import Receipt, Submission, own_job
from job.telemetry import event, warn

UNDER_WAY = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
ALL_NODES = "0:"
DEFAULT_LOG_GROUP = "/aws/batch/job"  # of a job definition that names none
DIGEST_DIGITS = 8  # in the job's name

# The stack's rule JobFailed sends no mail for this reason.
BY_HAND = "stopped by hand"

# An image in ECR. Others are of registries that only the machine has a login for.
ECR_IMAGE = re.compile(
    r"(?P<registry>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/"
    r"(?P<repository>[^:@]+):(?P<tag>[^:@]+)"
)


@dataclass(frozen=True)
class AwsBatch:
    """The stack whose outputs name queues and job definitions, or a queue and a definition."""

    cluster: ClassVar[str | None] = "AWS Batch"

    stack: str = "recap"
    queue: str | None = None
    job_definition: str | None = None
    aws: Aws = field(default_factory=Aws)

    def check(self, submission: Submission, strict: bool) -> None:
        """Raise MissingError if the stack, queue, definition or image does not exist.

        Raise ConfigError if one of them does not fit the submission.
        """
        queue, name = self._names(submission)
        if not strict and not self._names_both:
            denials = self._stack.denials(submission)
            if denials:
                warn(denials)
        self._check_queue(queue)
        definition = self._definition(name)
        is_multinode = definition["type"] == "multinode"
        if is_multinode != (submission.nodes > 1):
            kind = "several nodes" if is_multinode else "one node"
            raise ConfigError(
                f"job definition {name} is for {kind}, and --nodes is {submission.nodes}: "
                "name another definition, or another number"
            )
        image = str(_container(definition).get("image"))
        if name == self._evaluations:
            self._check_serves(image, strict)
        self._check_image(image)

    def rights(self, submission: Submission) -> list[Check]:
        """Return what the job itself may read and write: on S3 by its role, on the Hub."""
        container = _container(self._definition(self._names(submission)[1]))
        return [self._role_check(submission, container), *hub_checks(submission, container)]

    def _role_check(self, submission: Submission, container: Mapping[str, Any]) -> Check:
        """Return what the job's role may do: by IAM, or by the stack's outputs."""
        role = container.get("jobRoleArn")
        reason = None
        if submission.endpoint_url:
            reason = "the role is of AWS, and storage.endpoint_url names another service"
        elif not role:
            reason = "the job definition names no role (jobRoleArn)"
        if reason:
            return Check(ROLE, f"not checked: {reason}", is_known=False)
        try:
            return ask_role(self.aws, str(role), submission)
        except NotAskedError as error:
            if self._names_both or not self._stack.names_rights(submission):
                return Check(ROLE, f"not checked: {error}", is_known=False)
            text = f"{error}; the outputs of stack {self._stack.name} allow these places"
        try:
            self._stack.check_places(submission)
        except ForbiddenError as error:
            return Check(ROLE, str(error), error)
        return Check(ROLE, text, is_known=False)

    def request(self, submission: Submission) -> dict[str, Any]:
        """Return the parameters of Batch's SubmitJob.

        Asks nobody if the user named queue and definition. Raise MissingError if the stack does not
        exist, or names none for the submission.
        """
        queue, definition = self._names(submission)
        overrides = {
            "command": [submission.config, *submission.arguments],
            "environment": [
                {"name": name, "value": value} for name, value in submission.environment.items()
            ],
        }
        request: dict[str, Any] = {
            "jobName": _job_name(submission),
            "jobQueue": queue,
            "jobDefinition": definition,
            # For bills: the definition passes them on to the tasks.
            "tags": {
                "recap/run": submission.run,
                "recap/command": submission.command,
                "recap/config": submission.short_digest,
            },
        }
        if submission.nodes > 1:
            of_all_nodes = {"targetNodes": ALL_NODES, "containerOverrides": overrides}
            request["nodeOverrides"] = {
                "numNodes": submission.nodes,
                "nodePropertyOverrides": [of_all_nodes],
            }
            return request

        # An array has at least two jobs.
        if submission.workers > 1:
            request["arrayProperties"] = {"size": submission.workers}
        request["containerOverrides"] = overrides
        return request

    def running(self, submission: Submission) -> str | None:
        """Return the id of a job of the same config in the queue; warn of another config's."""
        queue, _ = self._names(submission)
        with aws_errors(f"listing the jobs of {queue}"):
            under_way = list(_jobs_under_way(self.aws.client("batch"), submission, queue))
        name = _job_name(submission)
        return own_job({str(job["jobId"]): job["jobName"] == name for job in under_way})

    def submit(self, submission: Submission, request: Any) -> str:
        """Submit the job."""
        with aws_errors(f"submitting to {request['jobQueue']}"):
            return str(self.aws.client("batch").submit_job(**request)["jobId"])

    def receipt(self, submission: Submission, id: str) -> Receipt:
        """Return the commands of the `aws` tool for a job."""
        region = self.aws.client("batch").meta.region_name
        options = self._log_options(submission)
        group = options.get("awslogs-group", DEFAULT_LOG_GROUP)
        follow = ["aws", "logs", "tail", group, "--region", region]
        prefix = options.get("awslogs-stream-prefix")
        if prefix:
            follow += ["--log-stream-name-prefix", f"{prefix}/"]
        follow.append("--follow")

        columns = (
            "status: status, why: statusReason, workers: arrayProperties.statusSummary, "
            "log: container.logStreamName"
        )
        state = ["aws", "batch", "describe-jobs", "--region", region, "--jobs", id]
        state += ["--query", f"jobs[0].{{{columns}}}"]
        stop = ["aws", "batch", "terminate-job", "--region", region, "--job-id", id]
        stop += ["--reason", BY_HAND]

        logs = f"CloudWatch log group {group}; `state` shows this job's own stream once it runs"
        return Receipt(id, logs, {"state": [state], "follow": [follow], "stop": [stop]})

    def watch(self, submission: Submission, id: str) -> BatchJob:
        """Return what follows a job."""
        group = self._log_options(submission).get("awslogs-group", DEFAULT_LOG_GROUP)
        return BatchJob(id, group, self.aws.client("batch"), self.aws.client("logs"))

    @property
    def _names_both(self) -> bool:
        """True if the user named queue and job definition, so that no stack is asked."""
        return bool(self.queue and self.job_definition)

    def _names(self, submission: Submission) -> tuple[str, str]:
        """Return queue and job definition: the user's, or else the stack's."""
        if self.queue and self.job_definition:
            return self.queue, self.job_definition

        outputs = self._stack.outputs
        queue_output, definition_output = self._stack.output_names(submission)
        queue = self.queue or outputs.get(queue_output)
        definition = self.job_definition or outputs.get(definition_output)
        if submission.command == "evaluate":
            definition = definition or self._evaluations
        if queue and definition:
            return queue, definition

        missing = []
        if not queue:
            missing.append(queue_output)
        if not definition:
            missing.append(definition_output)
        raise MissingError(
            f"stack {self.stack} has no output {' and no output '.join(missing)}: bring it up to "
            f"date (`make deploy`), {NAMES_INSTEAD}"
        )

    @cached_property
    def _stack(self) -> Stack:
        return read_stack(self.aws, self.stack)

    @property
    def _evaluations(self) -> str:
        """The job definition that infra/aws/README.md adds to a stack."""
        return f"{self.stack}-evaluate"

    def _check_queue(self, queue: str) -> None:
        with aws_errors(f"asking for queue {queue}"):
            found = self.aws.client("batch").describe_job_queues(jobQueues=[queue])["jobQueues"]
        if not found:
            raise MissingError(
                f"queue {queue} does not exist in this account and region: check --queue, or "
                "create it (`make deploy`)"
            )
        if found[0]["state"] != "ENABLED":
            raise ConfigError(f"queue {queue} is {found[0]['state']} and takes no jobs: enable it")

    def _definition(self, name: str) -> Mapping[str, Any]:
        """Return the newest active revision of a definition, or the revision that is named."""
        has_revision = ":" in name
        query = {"jobDefinitions": [name]} if has_revision else {"jobDefinitionName": name}
        with aws_errors(f"asking for job definition {name}"):
            batch = self.aws.client("batch")
            found = batch.describe_job_definitions(**query, status="ACTIVE")["jobDefinitions"]
        if not found:
            how = "`make deploy`"
            if name == self._evaluations:
                how = "infra/aws/README.md, Evaluations"
            raise MissingError(
                f"job definition {name} does not exist in this account and region, or is not "
                f"active any more: check --job-definition, or create it ({how})"
            )
        newest: Mapping[str, Any] = max(found, key=lambda definition: definition["revision"])
        return newest

    def _check_serves(self, image: str, strict: bool) -> None:
        """Raise ConfigError if evaluations would judge with another image than that of nights."""
        tag = self._stack.outputs.get("ImageTag")
        if not tag or image.endswith(f"-{tag}"):
            return
        found = f"evaluations have the image {image}, and the nights of the stack have tag {tag}"
        if not strict:
            warn(found)
            return
        raise ConfigError(f"{found}: judge with what serves (`make evaluations`)")

    def _check_image(self, image: str) -> None:
        """Raise MissingError if an image in ECR is not there: each attempt would start in vain."""
        from botocore.exceptions import ClientError

        found = ECR_IMAGE.fullmatch(image)
        if not found:
            return
        with aws_errors(f"asking for image {image}"):
            try:
                self.aws.client("ecr", found["region"]).describe_images(
                    registryId=found["registry"],
                    repositoryName=found["repository"],
                    imageIds=[{"imageTag": found["tag"]}],
                )
            except ClientError as error:
                if is_denied(error):
                    event("not known whether the image exists: no right to ask", image=image)
                elif error.response["Error"]["Code"].endswith("NotFoundException"):
                    raise MissingError(
                        f"image {image} of the job definition does not exist: push it "
                        "(`make push`), or deploy a tag that is there (`make deploy TAG=…`)"
                    ) from error
                else:
                    raise

    def _log_options(self, submission: Submission) -> Mapping[str, str]:
        container = _container(self._definition(self._names(submission)[1]))
        options: Mapping[str, str] = container.get("logConfiguration", {}).get("options", {})
        return options


def _container(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the properties of the container, for several nodes those of the first."""
    nodes = (definition.get("nodeProperties") or {}).get("nodeRangeProperties") or [{}]
    container = definition.get("containerProperties") or nodes[0].get("container") or {}
    return dict(container)


def _job_name(submission: Submission) -> str:
    return f"{submission.name}-{submission.digest[:DIGEST_DIGITS]}"


def _jobs_under_way(batch: Any, submission: Submission, queue: str) -> Iterator[Mapping[str, Any]]:
    """Yield the jobs of this run that have not ended, whatever their config."""
    own_name = re.compile(rf"{re.escape(submission.name)}-[0-9a-f]{{{DIGEST_DIGITS}}}")

    # Without a filter, Batch lists only jobs that are running.
    filters = [{"name": "JOB_NAME", "values": [f"{submission.name}-*"]}]
    for page in batch.get_paginator("list_jobs").paginate(jobQueue=queue, filters=filters):
        for job in page["jobSummaryList"]:
            if job["status"] in UNDER_WAY and own_name.fullmatch(job["jobName"]):
                yield job
