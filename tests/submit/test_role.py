"""Claims about what IAM says of a job's role, by the policies of the stack's own template."""

import json
from typing import Any

import boto3
import pytest

from job.errors import ExitCode, ForbiddenError
from job.submit.aws import Aws
from job.submit.aws_batch import AwsBatch
from job.submit.role import NotAskedError, ask_role
from job.submit.submission import Place, Submission
from tests.infra import stack
from tests.storage.services import answering
from tests.submit.conftest import put
from tests.submit.iam import simulate_policies


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_policies(monkeypatch)


@pytest.fixture
def role(s3, simulated) -> str:
    """The stack's role for nights, on the bucket of the test."""
    return make_role(s3, stack.policy("SummarizeRole"))


def make_role(s3: Any, statements: list[dict[str, Any]]) -> str:
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    document = document.replace(stack.outputs()["Bucket"], s3.bucket)
    iam = boto3.client("iam")
    name = f"night-{s3.bucket}"
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document)
    return str(arn)


def night(s3: Any, **places: str) -> Submission:
    writes = [Place("output", places.pop("output", f"{s3.uri}/summaries/dt=1/"))]
    reads = [Place(key, uri) for key, uri in places.items()]
    return Submission("summarize", "r", "c.yaml", "ab" * 32, reads=reads, writes=writes)


def encrypt(s3: Any, key: str) -> None:
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
    s3.client().put_bucket_encryption(Bucket=s3.bucket, ServerSideEncryptionConfiguration=rules)


def test_places_that_the_role_may_use_have_a_tick_with_its_limits(s3, role):
    put(s3, "conversations/dt=1/day.jsonl", b"{}")
    put(s3, "models/tiny/config.json", b"{}")
    places = {"input": f"{s3.uri}/conversations/dt=1/", "model.base": f"{s3.uri}/models/tiny"}
    found = ask_role(Aws(), role, night(s3, **places))
    assert (found.mark, found.error) == ("✓", None)
    assert "the policies of buckets and keys are not part of it" in found.found


@pytest.mark.parametrize(
    ("key", "place", "action"),
    [
        ("input", "data/day.jsonl", "s3:GetObject"),
        ("input", "data/", "s3:ListBucket"),
        ("adapter", "runs/x/checkpoints/9", "s3:GetObject"),
        ("output", "runs/x/", "s3:PutObject"),
    ],
)
def test_a_place_that_the_role_may_not_use_is_an_error_as_in_the_job(s3, role, key, place, action):
    put(s3, "data/day.jsonl", b"{}")
    found = ask_role(Aws(), role, night(s3, **{key: f"{s3.uri}/{place}"}))
    assert isinstance(found.error, ForbiddenError)
    assert found.error.exit_code == ExitCode.FORBIDDEN
    (line, *_) = [each for each in found.found.splitlines() if action in each]
    assert line.split() == [key, action, f"{s3.uri}/{place}"]


def test_the_keys_that_are_there_decide_and_not_made_up_ones(s3, simulated):
    arn = f"arn:aws:s3:::{s3.bucket}"
    statements = [
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": arn},
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"{arn}/calls/*.jsonl"},
        {"Effect": "Allow", "Action": ["s3:PutObject", "s3:DeleteObject"], "Resource": f"{arn}/*"},
    ]
    put(s3, "calls/day.jsonl", b"{}")
    put(s3, "other/day.csv", b"a")
    role = make_role(s3, statements)
    assert ask_role(Aws(), role, night(s3, input=f"{s3.uri}/calls/")).error is None
    assert ask_role(Aws(), role, night(s3, input=f"{s3.uri}/other/")).error is not None


def test_the_key_that_encrypts_a_bucket_is_asked_for_too(s3, simulated):
    key = "arn:aws:kms:us-east-1:123456789012:key/1"
    encrypt(s3, key)
    put(s3, "conversations/day.jsonl", b"{}")
    job = night(s3, input=f"{s3.uri}/conversations/day.jsonl")
    statements = stack.policy("SummarizeRole")
    found = ask_role(Aws(), make_role(s3, statements), job)
    denied = [line.split()[:2] for line in found.found.splitlines() if " kms:" in line]
    assert denied == [["input", "kms:Decrypt"], ["output", "kms:GenerateDataKey"]]

    uses = {"Effect": "Allow", "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": key}
    iam = boto3.client("iam")
    document = json.dumps({"Version": "2012-10-17", "Statement": [uses]})
    name = f"night-{s3.bucket}"
    iam.put_role_policy(RoleName=name, PolicyName="key", PolicyDocument=document)
    role = iam.get_role(RoleName=name)["Role"]["Arn"]
    assert ask_role(Aws(), role, job).error is None


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (400, "Unknown")])
def test_who_may_not_ask_iam_gets_a_reason_and_no_tick(s3, role, serve, monkeypatch, status, code):
    monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", serve(answering(status, code)))
    with pytest.raises(NotAskedError, match=r"SimulatePrincipalPolicy|asking IAM"):
        ask_role(Aws(), role, night(s3))


def test_a_store_that_is_not_the_roles_is_not_checked(monkeypatch):
    job = Submission("train", "r", "c.yaml", "ab" * 32, endpoint_url="https://store.internal")
    batch = AwsBatch(queue="q", job_definition="d")
    definition = {"containerProperties": {"jobRoleArn": "arn:aws:iam::1:role/r"}}
    monkeypatch.setattr(AwsBatch, "_definition", lambda self, name: definition)
    (found,) = batch.rights(job)
    assert (found.mark, found.found.partition(":")[0]) == ("–", "not checked")
