"""recap runs under the stack's roles, on a store that refuses all else; and no role allows more."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

from job.errors import ExitCode
from tests.faults.s3_proxy import Fault, FaultyS3, Request
from tests.faults.trials import QUIET
from tests.infra import stack
from tests.infra.kustomize import FOLDER

BUCKET = "arn:aws:s3:::recap-bucket"
ROLES = ["TrainRole", "SummarizeRole", "ExecutionRole", "SchedulerRole", "NightDueRole"]
UNBOUND = {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}  # actions that take no resource
END = "summaries"  # the message of the metric filters: tests/infra/test_aws_alarms.py
TOPICS = ["phone", "parcel", "refund", "flight"]


def action_of(request: Request) -> tuple[str, str]:
    """Return the IAM action of a request to S3, and its resource."""
    url = urlsplit(request.path)
    key, query = (
        unquote(url.path).lstrip("/").partition("/")[2],
        parse_qs(url.query, keep_blank_values=True),
    )
    if not key:
        return "s3:ListBucket", BUCKET
    match request.method:
        case "GET" | "HEAD":
            action = "s3:GetObject"
        case "DELETE":
            action = "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"
        case _:
            action = "s3:PutObject"
    return action, f"{BUCKET}/{key}"


@dataclass
class Role:
    """A role: the statements of its policies, the rights that were used, and refused requests."""

    statements: list[dict[str, Any]]
    used: set[tuple[str, str]] = field(default_factory=set)
    refused: list[tuple[str, str]] = field(default_factory=list)

    def plan(self, request: Request) -> Fault | None:
        """Refuse as S3 does: what is not allowed is forbidden."""
        asked = action_of(request)
        rights = [right for right in self.rights() if all(map(fnmatchcase, asked, right))]
        self.used.update(rights)
        if rights:
            return None
        self.refused.append(asked)
        return Fault("status", status=403)

    def rights(self) -> set[tuple[str, str]]:
        """Each action with each resource that it is allowed on."""
        return {
            (action, where)
            for one in self.statements
            for action in one["Action"]
            for where in one["Resource"]
        }


@pytest.fixture
def guarded(s3, s3_endpoint, aws_environment, places):
    """S3 that does what the role allows, which a test sets by `plan`."""
    with FaultyS3(s3_endpoint).running() as proxy:
        aws_environment.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def recap(command: str, config: str, stop_at: str | None = None) -> tuple[int, str]:
    """Run recap; with `stop_at`, until it says so, and then stop it as a reclaimed machine does."""
    arguments = [sys.executable, "-m", "job", command, config]
    said = []
    with subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | QUIET,
    ) as process:
        for line in process.stderr or ():
            said.append(line)
            if stop_at and stop_at in line:
                process.send_signal(signal.SIGTERM)
                stop_at = None
    return process.returncode, "".join(said)


def conversations(first: int, count: int) -> bytes:
    lines = []
    for n in range(first, first + count):
        turns = [
            {
                "role": "customer",
                "text": f"My {TOPICS[n % 4]} number {n} does not work since day {n * 7 % 31}.",
            },
            {
                "role": "agent",
                "text": f"Sorry! Please restart the {TOPICS[n % 4]} and tell me code {n * 13}.",
            },
        ]
        lines.append(
            {
                "id": f"c{n}",
                "turns": turns,
                "summaries": [f"{TOPICS[n % 4]} {n} fixed by a restart."],
            }
        )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def fill(s3: Any, base: Path) -> None:
    """The stack's bucket as its README lays it out."""
    uri = s3.uri
    train = {
        "run": "tiny",
        "model": {"base": f"{uri}/models/tiny"},
        "data": {"train": f"{uri}/data/train.jsonl", "validation": f"{uri}/data/validation.jsonl"},
        "output": f"{uri}/runs",
        "lora": {"r": 4},
        "training": {
            "epochs": 4,
            "batch_size": 4,
            "gradient_accumulation_steps": 1,
            "max_tokens": 512,
        }
        | {"save_every_steps": 4, "keep_last": 1, "log_every_steps": 1, "sample_summaries": 0},
        "generation": {"max_new_tokens": 8},
        "evaluation": {"max_conversations": 2, "bootstrap_samples": 100},
    }
    night = {
        "run": "nightly",
        "input": f"{uri}/conversations/dt=2026-01-31/",
        "adapter": f"{uri}/runs/tiny/adapter",
        "output": f"{uri}/summaries/dt=2026-01-31/",
        "generation": {"max_new_tokens": 8},
        "limits": {"max_reject_fraction": 1},
    }
    files = {
        "configs/train.yaml": yaml.safe_dump(train).encode(),
        "configs/nightly.yaml": yaml.safe_dump(night).encode(),
        "data/train.jsonl": conversations(0, 24),
        "data/validation.jsonl": conversations(100, 6),
        "conversations/dt=2026-01-31/a.jsonl": conversations(200, 5),
    }
    files |= {f"models/tiny/{path.name}": path.read_bytes() for path in base.iterdir()}
    for key, content in files.items():
        s3.client().put_object(Bucket=s3.bucket, Key=key, Body=content)


@pytest.mark.timeout(900)  # three processes that load torch
def test_recap_runs_with_what_its_roles_allow_and_they_allow_no_more(
    s3, base_folder, guarded, aws_environment, tmp_path
):
    fill(s3, base_folder)
    train, summarize = Role(stack.policy("TrainRole")), Role(stack.policy("SummarizeRole"))

    guarded.reset(train.plan)
    code, said = recap("train", f"{s3.uri}/configs/train.yaml", stop_at='"message": "step"')
    assert (code, train.refused) == (ExitCode.RETRY, []), said
    code, said = recap("train", f"{s3.uri}/configs/train.yaml")
    assert (code, train.refused) == (ExitCode.DONE, []), said

    aws_environment.setenv("RECAP_CACHE", str(tmp_path / "another machine"))
    guarded.reset(summarize.plan)
    code, said = recap("summarize", f"{s3.uri}/configs/nightly.yaml")
    assert (code, summarize.refused) == (ExitCode.DONE, []), said
    (end,) = [line for line in map(json.loads, said.splitlines()) if line["message"] == END]
    assert (end["run"], end["records"], end["rejects"]) == ("nightly", 5, 0), (
        "what the stack's metric filters read"
    )

    failing = "s3:AbortMultipartUpload"  # of uploads that break off, which no run here did
    for role in (train, summarize):
        assert {right for right in role.rights() - role.used if right[0] != failing} == set()


def test_what_a_role_does_not_allow_ends_the_job_as_forbidden(s3, base_folder, guarded):
    fill(s3, base_folder)
    role = Role(stack.policy("SummarizeRole"))
    guarded.reset(role.plan)
    code, _ = recap("train", f"{s3.uri}/configs/train.yaml")
    assert (code, role.refused[0][0]) == (ExitCode.FORBIDDEN, "s3:GetObject")


def test_no_role_has_a_wildcard_for_actions_or_a_resource_it_could_name():
    everything = {
        "HfTokenSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:hf",
        "InputBucket": "mine",
        "Night": "on",
    }
    for name in ROLES:
        for statement in stack.policy(name, **everything):
            actions = set(statement["Action"])
            assert not [action for action in actions if "*" in action], name
            assert "*" not in statement["Resource"] or actions <= UNBOUND, f"{name}: {actions}"


def test_jobs_can_delete_no_version_and_training_no_adapter():
    for name in ("TrainRole", "SummarizeRole"):
        role = Role(stack.policy(name, InputBucket="mine"))
        assert not [
            action for action, _ in role.rights() if "Version" in action or "Lifecycle" in action
        ]
        written = [
            where
            for action, where in role.rights()
            if action not in ("s3:GetObject", "s3:ListBucket")
        ]
        assert all(
            where.startswith((f"{BUCKET}/runs/", f"{BUCKET}/summaries/")) for where in written
        )
    train = Role(stack.policy("TrainRole"))
    adapter = ("s3:DeleteObject", f"{BUCKET}/runs/support/adapter/adapter_model.safetensors")
    assert not [right for right in train.rights() if all(map(fnmatchcase, adapter, right))]


def test_pods_on_eks_may_do_what_both_jobs_do_on_batch_and_delete_no_more():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^(sed .* role-policy\.json) > ", page, re.MULTILINE)
    words = shlex.split(command.replace("my-bucket", "recap-bucket"))
    overlay = FOLDER / "overlays" / "eks"
    text = subprocess.run(words, cwd=overlay, check=True, capture_output=True, text=True).stdout
    pods = Role(
        [
            {key: listed(value) for key, value in one.items()}
            for one in json.loads(text)["Statement"]
        ]
    ).rights()
    jobs = Role(stack.policy("TrainRole")).rights() | Role(stack.policy("SummarizeRole")).rights()
    assert not [
        asked for asked in jobs if not any(all(map(fnmatchcase, asked, right)) for right in pods)
    ]
    for changing in ("s3:DeleteObject", "s3:PutObject"):
        assert {right for right in pods if right[0] == changing} == {
            right for right in jobs if right[0] == changing
        }
    assert {action for action, _ in pods} == {action for action, _ in jobs}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_roles_are_for_this_account_alone():
    for name, resource in stack.both(Night="on").items():
        if resource["Type"] == "AWS::IAM::Role" and name != "InstanceRole":
            (trust,) = resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": stack.ACCOUNT}}, (
                name
            )
