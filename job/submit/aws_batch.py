"""Submit to AWS Batch: one job, an array of workers, or several nodes at once.

The job definition decides on retries, timeout, image and roles. Queue and definition are named by
the user, or by the outputs of the stack that infra/aws makes.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from job.errors import ConfigError, ForbiddenError, MissingError, RecapError, RetryError
from job.storage.s3_errors import without_login
from job.submit.submission import Receipt, Submission
from job.telemetry import warn

UNDER_WAY = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
ALL_NODES = "0:"
DEFAULT_LOG_GROUP = "/aws/batch/job"  # of a job definition that names none
MAX_ATTEMPTS = 5
CONNECT_SECONDS = 10
DIGEST_DIGITS = 8  # in the job's name

# The stack's rule JobFailed sends no mail for this reason.
BY_HAND = "stopped by hand"

# Error codes of AWS.
BAD_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "OptInRequired"}
BUSY = {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"}


@dataclass(frozen=True)
class AwsBatch:
    """The stack whose outputs name queues and job definitions, or a queue and a definition."""

    cluster: ClassVar[str | None] = "AWS Batch"

    stack: str = "recap"
    queue: str | None = None
    job_definition: str | None = None

    def request(self, submission: Submission) -> dict[str, Any]:
        """Return the parameters of Batch's SubmitJob.

        Raise MissingError if the stack, queue or definition does not exist, ConfigError if one does
        not fit the submission.
        """
        queue, definition = self._names(submission)
        self._check_queue(queue)
        is_multinode = self._definition(definition)["type"] == "multinode"
        if is_multinode != (submission.nodes > 1):
            kind = "several nodes" if is_multinode else "one node"
            raise ConfigError(
                f"job definition {definition} is for {kind}, and --nodes is {submission.nodes}: "
                "name another definition, or another number"
            )

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
        }
        if is_multinode:
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

    def submit(self, submission: Submission, request: Any) -> Receipt:
        """Submit the job. Raise RetryError if one with the same config is in this queue already."""
        self._check_alone(submission, request["jobQueue"])
        with aws_errors(f"submitting to {request['jobQueue']}"):
            batch = self._client("batch")
            id = batch.submit_job(**request)["jobId"]
        return self._receipt(id, request["jobDefinition"], batch.meta.region_name)

    def _names(self, submission: Submission) -> tuple[str, str]:
        """Return queue and job definition: the user's, or else the stack's."""
        kind = "Nodes" if submission.nodes > 1 else ""
        queue_output = f"{kind}Queue"
        definition_output = f"{submission.command.capitalize()}{kind}JobDefinition"
        if self.queue and self.job_definition:
            return self.queue, self.job_definition

        outputs = self._outputs()
        queue = self.queue or outputs.get(queue_output)
        definition = self.job_definition or outputs.get(definition_output)
        if queue and definition:
            return queue, definition

        missing = []
        if not queue:
            missing.append(queue_output)
        if not definition:
            missing.append(definition_output)
        raise MissingError(
            f"stack {self.stack} has no output {' and no output '.join(missing)}: bring it up to "
            "date (`make deploy`), or name the queue and the definition with --queue and "
            "--job-definition"
        )

    def _outputs(self) -> dict[str, str]:
        from botocore.exceptions import ClientError

        with aws_errors(f"reading stack {self.stack}"):
            client = self._client("cloudformation")
            try:
                found = client.describe_stacks(StackName=self.stack)["Stacks"][0]
            except ClientError as error:
                # CloudFormation answers so if there is no such stack.
                if error.response["Error"]["Code"] != "ValidationError":
                    raise
                raise MissingError(
                    f"stack {self.stack} does not exist in this account and region: create it "
                    "(`make deploy`), name another (--stack), or give both --queue and "
                    "--job-definition"
                ) from error
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", ())}

    def _check_queue(self, queue: str) -> None:
        with aws_errors(f"asking for queue {queue}"):
            found = self._client("batch").describe_job_queues(jobQueues=[queue])["jobQueues"]
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
            answer = self._client("batch").describe_job_definitions(**query, status="ACTIVE")
        found = answer["jobDefinitions"]
        if not found:
            raise MissingError(
                f"job definition {name} does not exist in this account and region, or is not "
                "active any more: check --job-definition, or create it (`make deploy`)"
            )
        newest: Mapping[str, Any] = max(found, key=lambda definition: definition["revision"])
        return newest

    @cached_property
    def _session(self) -> Any:
        """One session for all clients: it reads each service's description once."""
        import boto3

        return boto3.session.Session()

    def _client(self, service: str) -> Any:
        from botocore.config import Config

        retries = {"mode": "standard", "total_max_attempts": MAX_ATTEMPTS}
        config = Config(retries=retries, connect_timeout=CONNECT_SECONDS)
        return self._session.client(service, config=config)

    def _check_alone(self, submission: Submission, queue: str) -> None:
        """Raise RetryError if a job with the same config is in the queue; warn of another's."""
        with aws_errors(f"listing the jobs of {queue}"):
            under_way = list(_jobs_under_way(self._client("batch"), submission, queue))
        for job in under_way:
            if job["jobName"] == _job_name(submission):
                stop = f"aws batch terminate-job --job-id {job['jobId']} --reason '{BY_HAND}'"
                raise RetryError(
                    f"job {job['jobId']} of the same config is {job['status']} already: wait for "
                    f"it, or stop it and run again: {stop}"
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


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Raise what boto3 raises in the block as an error of `job.errors`.

    Its message begins with `what` was asked.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _error_of_answer(what, error.response) from error
    except BotoCoreError as error:
        raise _error_without_answer(what, error) from error


def _error_of_answer(what: str, response: Any) -> RecapError:
    details = response.get("Error", {})
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    code = str(details.get("Code", ""))
    answer = f"{what}: AWS answered {details.get('Code')}: {details.get('Message', '')}"

    if code in BUSY or status == 429 or status >= 500:
        return RetryError(f"{answer}, also after retries: run again later")
    if code in BAD_CREDENTIALS:
        return ForbiddenError(
            f"{answer}: the credentials are wrong or have expired, or this machine's clock is off"
        )
    if code in DENIED or status in (401, 403):
        return ForbiddenError(
            f"{answer}: allow it to these credentials (docs/operations.md, Permissions)"
        )
    return ConfigError(f"{answer}: check the names and the numbers of the command line")


def _error_without_answer(what: str, error: Exception) -> RecapError:
    from botocore import exceptions as of

    name = type(error).__name__
    credential_errors = (
        of.NoCredentialsError,
        of.PartialCredentialsError,
        of.CredentialRetrievalError,
        of.LoginError,
        of.NoAuthTokenError,
        of.TokenRetrievalError,
        of.SSOError,
        of.MetadataRetrievalError,
    )
    if isinstance(error, credential_errors):
        return ForbiddenError(
            f"{what}: no usable AWS credentials ({name}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (after `aws sso login`, where it is one of "
            "those)"
        )
    if isinstance(error, of.ConnectionError | of.HTTPClientError):
        return RetryError(
            f"{what}: AWS cannot be reached, also after retries ({name}): check the network, the "
            "region and the AWS_ENDPOINT_URL variables, or run again later"
        )
    if isinstance(error, of.NoRegionError):
        return ConfigError(
            f"{what}: no AWS region is named: set AWS_DEFAULT_REGION, or one in AWS_PROFILE"
        )
    return ConfigError(f"{what}: AWS cannot be used as configured: {without_login(str(error))}")
