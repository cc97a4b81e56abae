"""The stack that infra/aws makes: the names in its outputs, and what its jobs may read and write.

A job runs with a role of the stack, not with the credentials of who submits it. The outputs name
what a role allows, so a place that it denies is found before a machine is paid for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from job.config.commands import Command
from job.errors import ForbiddenError, MissingError
from job.storage.keys import scheme_of, split_s3
from job.submit.aws import Aws, aws_errors
from job.submit.submission import Place, Submission

# Outputs with a pattern of keys of the InputBucket. Older stacks lack them and allow every key.
INPUT_KEYS = {"Train": "TrainInput", "Summarize": "NightInput"}

# The roles, as outputs name them. An evaluation reads the data of trainings and may promote.
ROLES: Mapping[Command, str] = {"train": "Train", "summarize": "Summarize", "evaluate": "Train"}

NAMES_INSTEAD = (
    "or give both --queue and --job-definition (with --dry-run --no-plan, these ask nobody)"
)


@dataclass(frozen=True)
class Stack:
    """A stack and its outputs."""

    name: str
    outputs: Mapping[str, str]

    def output_names(self, submission: Submission) -> tuple[str, str]:
        """Return the outputs that name the queue and the job definition for the submission."""
        kind = "Nodes" if submission.nodes > 1 else ""
        queue = f"{kind}Queue"
        # A night has a queue of its own, so that no training is ahead of it.
        if submission.command == "summarize" and "NightQueue" in self.outputs:
            queue = "NightQueue"
        return queue, f"{submission.command.capitalize()}{kind}JobDefinition"

    def denials(self, submission: Submission) -> str | None:
        """Return which places the job's role may not read or write, by the stack's outputs.

        Return None if there are none, if the stack has no outputs for that, or if the store is not
        AWS's.
        """
        if not self.names_rights(submission):
            return None
        role = ROLES[submission.command]
        bucket = self.outputs["Bucket"]
        read_prefixes = self.outputs[f"{role}Reads"]
        write_prefixes = self.outputs[f"{role}Writes"]

        writes = [f"{bucket}/{prefix}*" for prefix in write_prefixes.split()]
        reads = [f"{bucket}/{prefix}*" for prefix in read_prefixes.split()]
        allowed = [f"read s3://{bucket}/ below {read_prefixes}"]
        input_bucket = self.outputs.get("InputBucket")
        if input_bucket:
            keys = self.outputs.get(INPUT_KEYS[role], "*")
            reads.append(f"{input_bucket}/{keys}")
            allowed.append(f"read s3://{input_bucket}/{keys} (InputBucket)")
        allowed.append(f"write below {write_prefixes}")

        rows = []
        for use, places, patterns in (
            ("read", submission.reads, reads),
            ("write", submission.writes, writes),
        ):
            for place in places:
                if not _is_allowed(place, patterns):
                    rows.append((place.key, use, place.uri))
        if not rows:
            return None

        width = max(len(key) for key, _, _ in rows)
        listed = "\n".join(f"  {key:{width}}  {use:5}  {uri}" for key, use, uri in rows)
        return (
            f"the role of stack {self.name} denies what the job would do (77):\n\n{listed}\n\n"
            f"it may {', '.join(allowed)}"
        )

    def names_rights(self, submission: Submission) -> bool:
        """Return True if the outputs name what the role of this job may read and write."""
        role = ROLES[submission.command]
        names = ("Bucket", f"{role}Reads", f"{role}Writes")
        return all(self.outputs.get(name) for name in names) and not submission.endpoint_url

    def check_places(self, submission: Submission) -> None:
        """Raise ForbiddenError, as the job would, if its role may not read or write a place."""
        found = self.denials(submission)
        if found is None:
            return
        keys = INPUT_KEYS[ROLES[submission.command]]
        raise ForbiddenError(
            f"{found}: name places there (the data by `aws s3 cp --recursive`), or let the stack "
            "read one bucket more (`make deploy` with InputBucket, TrainInput and NightInput), or "
            f"other keys of it ({keys}); if the role has more rights "
            "than the stack knows of, --no-plan submits with a warning"
        )


def read_stack(aws: Aws, name: str) -> Stack:
    """Return the stack. Raise MissingError if it does not exist."""
    from botocore.exceptions import ClientError

    with aws_errors(f"reading stack {name}"):
        try:
            found = aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            # CloudFormation answers so if there is no such stack.
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            raise MissingError(
                f"stack {name} does not exist in this account and region: create it "
                f"(`make deploy`), name another (--stack), {NAMES_INSTEAD}"
            ) from error
    outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())}
    return Stack(name, outputs)


def _is_allowed(place: Place, patterns: list[str]) -> bool:
    """Return True unless the place is on S3 and fits none of the patterns of bucket and key."""
    if scheme_of(place.uri) != "s3":
        return True
    bucket, key = split_s3(place.uri)

    # As for S3, the folder `data` is `data/`, and no part of `data2/`.
    names = (f"{bucket}/{key}", f"{bucket}/{key}/")
    return any(_fits(name, pattern) for name in names for pattern in patterns)


def _fits(name: str, pattern: str) -> bool:
    """Return True if a policy of IAM with the pattern is about the name.

    There, * stands for any characters, also for slashes, and ? for one.
    """
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return bool(re.fullmatch(expression, name, re.DOTALL))
