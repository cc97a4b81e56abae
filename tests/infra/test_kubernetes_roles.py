"""On EKS, recap runs with the two policies of its pods, and neither allows more than it uses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from tests.infra.kustomize import FOLDER, of_kind, render, templates
from tests.infra.roles import BUCKET, Role, evaluate_twice, fill, promote, recap

OVERLAY = FOLDER / "overlays" / "eks"
JOBS = ["train", "summarize", "weekly"]


def role(job: str) -> Role:
    """Return the role of a job's pods, as the page makes it."""
    text = (OVERLAY / f"{job}-policy.json").read_text(encoding="utf-8")
    statements = json.loads(text.replace("BUCKET", "recap-bucket"))["Statement"]
    return Role([with_lists(each) for each in statements])


def with_lists(statement: dict[str, Any]) -> dict[str, Any]:
    found = dict(statement)
    for key in ("Action", "Resource"):
        if isinstance(found[key], str):
            found[key] = [found[key]]
    return found


@pytest.mark.infra
@pytest.mark.timeout(900)  # three processes that load torch
def test_recap_runs_with_the_policies_of_its_pods_on_eks(
    s3, base_folder, guarded, aws_environment, tmp_path
):
    fill(s3, base_folder)
    train, summarize = role("train"), role("summarize")

    guarded.reset(train.plan)
    code, said = recap("train", f"{s3.uri}/configs/train.yaml", stop_at='"message": "step"')
    assert (code, train.refused) == (ExitCode.RETRY, []), said
    code, said = recap("train", f"{s3.uri}/configs/train.yaml")
    assert (code, train.refused) == (ExitCode.DONE, []), said

    guarded.reset(summarize.plan)
    code, said = recap("summarize", f"{s3.uri}/configs/nightly.yaml")
    assert (code, summarize.refused) == (ExitCode.MISSING, []), "there is no champion yet"
    guarded.reset(train.plan)
    code, said = promote(s3)
    assert (code, train.refused) == (ExitCode.DONE, []), said
    assert (evaluate_twice(s3), train.refused) == ([ExitCode.GATE, ExitCode.DONE], [])

    aws_environment.setenv("RECAP_CACHE", str(tmp_path / "another machine"))
    guarded.reset(summarize.plan)
    code, said = recap("summarize", f"{s3.uri}/configs/nightly.yaml")
    assert (code, summarize.refused) == (ExitCode.DONE, []), said

    failing = "s3:AbortMultipartUpload"  # of uploads that break off, which no run here did
    for each in (train, summarize):
        unused = {right for right in each.rights() - each.used if right[0] != failing}
        assert unused == set()


def test_a_night_cannot_change_an_adapter_or_read_trainings():
    night = role("summarize")
    assert night.allows("s3:GetObject", f"{BUCKET}/runs/support/adapter/adapter_config.json")
    for kept in ("run.json", "report.html", "evaluation.json", "tensorboard/events", "lease/1"):
        assert not night.allows("s3:GetObject", f"{BUCKET}/runs/support/{kept}")
    assert not night.allows("s3:GetObject", f"{BUCKET}/data/train.jsonl")
    assert not night.allows("s3:ListBucket", f"{BUCKET}?")
    assert not night.allows("s3:ListBucket", f"{BUCKET}?data/")
    for action in ("s3:PutObject", "s3:DeleteObject"):
        assert not night.allows(action, f"{BUCKET}/runs/support/adapter/adapter_model.safetensors")
        assert not night.allows(action, f"{BUCKET}/configs/nightly.yaml")


def test_a_training_cannot_read_nights_or_delete_an_adapter():
    training = role("train")
    for other in ("conversations/dt=2026-01-31/a.jsonl", "summaries/dt=2026-01-31/day.jsonl"):
        assert not training.allows("s3:GetObject", f"{BUCKET}/{other}")
    adapter = f"{BUCKET}/runs/support/adapter/adapter_model.safetensors"
    assert training.allows("s3:PutObject", adapter)
    assert not training.allows("s3:DeleteObject", adapter)
    assert not training.allows("s3:PutObject", f"{BUCKET}/data/train.jsonl")


def test_a_week_may_train_and_reads_nights_that_it_cannot_change():
    week, training = role("weekly"), role("train")
    assert training.rights() < week.rights()
    more = {
        action for action, where in week.rights() - training.rights() if "feedback" not in where
    }
    assert more == {"s3:GetObject", "s3:ListBucket"}
    for read in ("verdicts/w05.jsonl", "conversations/a.jsonl", "summaries/dt=2026-01-31/a.jsonl"):
        assert week.allows("s3:GetObject", f"{BUCKET}/{read}")
        for action in ("s3:PutObject", "s3:DeleteObject"):
            assert not week.allows(action, f"{BUCKET}/{read}")
    assert week.allows("s3:PutObject", f"{BUCKET}/data/feedback/2026-02-02/manifest.json")


@pytest.mark.parametrize("job", JOBS)
def test_roles_name_each_of_their_actions(job):
    assert not [action for action, _ in role(job).rights() if "*" in action]


# The page


@pytest.fixture(scope="module")
def calls_of_page(tmp_path_factory: pytest.TempPathFactory) -> list[list[list[str]]]:
    return run_page(tmp_path_factory.mktemp("page"), "recap")


def run_page(tmp_path: Path, namespace: str) -> list[list[list[str]]]:
    """Run the page's two ways to make the roles, with a stand-in for aws. Return its calls."""
    stand_in = tmp_path / "aws"
    stand_in.write_text(AWS, encoding="utf-8")
    stand_in.chmod(0o755)
    page = (FOLDER / "storage.md").read_text(encoding="utf-8")
    page = page.replace("\nnamespace=recap\n", f"\nnamespace={namespace}\n")
    blocks = re.findall(r"^```sh\n(cd infra/kubernetes/overlays/eks\n.*?)^```", page, re.M | re.S)
    calls = []
    for number, block in enumerate(blocks):
        log = tmp_path / f"{number}.jsonl"
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(log)}
        command = ["bash", "-eu", "-c", block]
        subprocess.run(command, cwd=FOLDER.parents[1], env=environment, check=True)
        calls.append([json.loads(line) for line in log.read_text("utf-8").splitlines()])
    return calls


AWS = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["CALLS"], "a") as log:
    print(json.dumps(sys.argv[1:]), file=log)
if "sts" in sys.argv:
    print("123456789012")
if "describe-cluster" in sys.argv:
    print("https://oidc.eks.us-east-1.amazonaws.com/id/0123")
if "create-role" in sys.argv:
    print("arn:aws:iam::123456789012:role/" + sys.argv[sys.argv.index("--role-name") + 1])
"""


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def trusts(calls: list[list[str]]) -> dict[str, dict[str, Any]]:
    """Return the statement by which each role is trusted."""
    found = {}
    for call in calls:
        if "create-role" in call:
            (statement,) = json.loads(option(call, "--assume-role-policy-document"))["Statement"]
            found[option(call, "--role-name")] = statement
    return found


def test_both_ways_of_the_page_give_each_role_its_policy(calls_of_page):
    assert len(calls_of_page) == 2
    for calls in calls_of_page:
        policies = {
            option(call, "--role-name"): json.loads(option(call, "--policy-document"))
            for call in calls
            if "put-role-policy" in call
        }
        assert set(policies) == {f"recap-{job}" for job in JOBS}
        for job in JOBS:
            text = (OVERLAY / f"{job}-policy.json").read_text(encoding="utf-8")
            assert policies[f"recap-{job}"] == json.loads(text.replace("BUCKET", "my-bucket"))


def test_pod_identity_gives_each_role_to_one_account(calls_of_page):
    identity, _ = calls_of_page
    for name, statement in trusts(identity).items():
        assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
        assert statement["Condition"]["StringEquals"] == {
            "aws:RequestTag/kubernetes-namespace": "recap",
            "aws:RequestTag/kubernetes-service-account": name,
        }
    given = {
        option(call, "--service-account"): option(call, "--role-arn")
        for call in identity
        if "create-pod-identity-association" in call
    }
    assert given == {name: f"arn:aws:iam::123456789012:role/{name}" for name in trusts(identity)}
    assert set(given) == set(of_kind(render("weekly"), "ServiceAccount"))


def test_irsa_gives_each_role_to_one_account(calls_of_page):
    _, irsa = calls_of_page
    issuer = "oidc.eks.us-east-1.amazonaws.com/id/0123"
    for name, statement in trusts(irsa).items():
        provider = f"arn:aws:iam::123456789012:oidc-provider/{issuer}"
        assert statement["Principal"] == {"Federated": provider}
        assert statement["Condition"]["StringEquals"] == {
            f"{issuer}:aud": "sts.amazonaws.com",
            f"{issuer}:sub": f"system:serviceaccount:recap:{name}",
        }
    assert len(trusts(irsa)) == 3


@pytest.mark.infra
def test_roles_are_for_the_namespace_that_one_sets(tmp_path):
    identity, irsa = run_page(tmp_path, "support")
    given = [call for call in identity if "create-pod-identity-association" in call]
    assert [option(call, "--namespace") for call in given] == ["support"] * 3
    for statement in trusts(identity).values():
        tags = statement["Condition"]["StringEquals"]
        assert tags["aws:RequestTag/kubernetes-namespace"] == "support"
    for name, statement in trusts(irsa).items():
        subject = f"system:serviceaccount:support:{name}"
        assert subject in statement["Condition"]["StringEquals"].values()


def test_each_account_is_used_by_the_command_that_it_is_named_after():
    used = {each.command: each.pod["serviceAccountName"] for each in templates(render("eks"))}
    nights = "recap-summarize"  # watching one reads what it has written
    assert used == {"train": "recap-train", "summarize": nights, "watch": nights}
