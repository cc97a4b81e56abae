"""Ask IAM what the role of a job may read and write, before a machine is paid for.

The person who submits has other rights than the job. IAM simulates the policies of a role for those
who may ask it. It does not know the policies of buckets and keys, nor what a firewall stops.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from job.config.sections import names_one_file
from job.errors import ForbiddenError, RecapError
from job.preflight.checks import Check
from job.preflight.plan import ROLE
from job.storage.keys import scheme_of, split_s3
from job.storage.open import open_store
from job.submit.aws import Aws, aws_errors
from job.submit.submission import Place, Submission

READ = "s3:GetObject"
LIST = "s3:ListBucket"
WRITES = ("s3:PutObject", "s3:DeleteObject")
DECRYPT = "kms:Decrypt"
ENCRYPT = "kms:GenerateDataKey"

# A plan writes and deletes such an object below the output, too.
PROBE = ".recap-probe-0"
SOME_OBJECT = "object"
REMEDY = (
    "allow it in the policy of the role, name places that it may use, or submit with --no-plan if "
    "the policy of the bucket or of the key allows it"
)
LIMITS = "the policies of buckets and keys are not part of it"


@dataclass(frozen=True)
class Right:
    """An action that the job needs on a resource (an ARN), and the place that needs it.

    `prefix` is that of a listing.
    """

    place: Place
    action: str
    resource: str
    prefix: str | None = None


class NotAskedError(Exception):
    """IAM cannot be asked; the message is the reason."""


def ask_role(aws: Aws, role: str, submission: Submission) -> Check:
    """Return the check of what the role (an ARN) may do, by IAM's simulation of its policies.

    The check fails with ForbiddenError if it may not read or write a place, as the job would. Raise
    NotAskedError if these credentials may not ask, or IAM does not answer.
    """
    rights = list(_rights(aws, role, submission))
    name = role.rpartition("/")[2]
    if not rights:
        return Check(ROLE, f"{name} needs no place of S3")
    denied = [right for right in rights if not _is_allowed(aws, role, right)]
    if not denied:
        text = f"{name} may read and write these places, says IAM; {LIMITS}"
        return Check(ROLE, text)

    rows = [(right.place.key, right.action, right.place.uri) for right in denied]
    width = max(len(key) for key, _, _ in rows)
    listed = "\n".join(f"  {key:{width}}  {action:18}  {uri}" for key, action, uri in rows)
    error = ForbiddenError(
        f"the job's role {name} may not do what the job does:\n{listed}\n{REMEDY}"
    )
    return Check(ROLE, str(error), error)


def _rights(aws: Aws, role: str, submission: Submission) -> Iterator[Right]:
    """Yield what the job needs on S3, and of the keys that encrypt the buckets."""
    partition = role.split(":")[1]
    keys: dict[str, str | None] = {}

    def key_of(bucket: str) -> str | None:
        if bucket not in keys:
            keys[bucket] = _key_of(aws, bucket)
        return keys[bucket]

    for place in _on_s3(submission.reads):
        bucket, prefix = split_s3(place.uri)
        arn = f"arn:{partition}:s3:::{bucket}"
        name = _object_below(place.uri)
        if name is not None:
            listed = f"{prefix.rstrip('/')}/" if prefix else ""
            yield Right(place, LIST, arn, listed)
        yield Right(place, READ, f"{arn}/{prefix if name is None else name}")
        key = key_of(bucket)
        if key:
            yield Right(place, DECRYPT, key)
    for place in _on_s3(submission.writes):
        bucket, prefix = split_s3(place.uri)
        folder = prefix.rpartition("/")[0] if names_one_file(place.uri) else prefix.rstrip("/")
        probe = f"{folder}/{PROBE}" if folder else PROBE
        for action in WRITES:
            yield Right(place, action, f"arn:{partition}:s3:::{bucket}/{probe}")
        key = key_of(bucket)
        if key:
            yield Right(place, ENCRYPT, key)


def _on_s3(places: Sequence[Place]) -> list[Place]:
    return [place for place in places if scheme_of(place.uri) == "s3"]


def _object_below(uri: str) -> str | None:
    """Return the key of an object below a prefix; None if the URI names one object.

    The rights of a role may depend on the ends of keys, so a key that is there is asked for.
    """
    _, prefix = split_s3(uri)
    try:
        found = [entry.key for entry in islice(open_store(uri).list(), 1)]
    except RecapError:
        found = [] if names_one_file(uri) else [SOME_OBJECT]
    return f"{prefix.rstrip('/')}/{found[0]}".lstrip("/") if found else None


def _key_of(aws: Aws, bucket: str) -> str | None:
    """Return the ARN of the KMS key that encrypts a bucket; None if there is none, or nobody knows.

    A key without an ARN is AWS's own, which needs no right.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = aws.client("s3").get_bucket_encryption(Bucket=bucket)
    except (BotoCoreError, ClientError):
        return None
    for rule in found["ServerSideEncryptionConfiguration"]["Rules"]:
        key = rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID", "")
        if key.startswith("arn:"):
            return str(key)
    return None


def _is_allowed(aws: Aws, role: str, right: Right) -> bool:
    question: dict[str, Any] = {
        "PolicySourceArn": role,
        "ActionNames": [right.action],
        "ResourceArns": [right.resource],
    }
    if right.prefix is not None:
        entry = {"ContextKeyName": "s3:prefix", "ContextKeyType": "string"}
        question["ContextEntries"] = [entry | {"ContextKeyValues": [right.prefix]}]
    try:
        with aws_errors(f"asking IAM about the role {role}"):
            answer = aws.client("iam").simulate_principal_policy(**question)
    except ForbiddenError as error:
        raise NotAskedError("no right to ask IAM (iam:SimulatePrincipalPolicy)") from error
    except RecapError as error:
        raise NotAskedError(str(error)) from error
    return all(each["EvalDecision"] == "allowed" for each in answer["EvaluationResults"])
