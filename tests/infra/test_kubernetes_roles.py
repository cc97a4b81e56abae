"""On EKS, recap runs with the two policies of its pods, and neither allows more than it uses."""

import json
from typing import Any

import pytest

from job.errors import ExitCode
from tests.infra.kustomize import FOLDER, of_kind, render, templates
from tests.infra.roles import BUCKET, Role, fill, recap

OVERLAY = FOLDER / "overlays" / "eks"
JOBS = ["train", "summarize"]


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


@pytest.mark.parametrize("job", JOBS)
def test_roles_name_their_actions_and_are_for_one_account_each(job):
    assert not [action for action, _ in role(job).rights() if "*" in action]
    trust = (OVERLAY / "trust.json").read_text(encoding="utf-8").replace("JOB", job)
    (statement,) = json.loads(trust)["Statement"]
    tags = statement["Condition"]["StringEquals"]
    account = tags["aws:RequestTag/kubernetes-service-account"]
    accounts = of_kind(render("eks"), "ServiceAccount")
    assert accounts[account]["metadata"]["namespace"] == tags["aws:RequestTag/kubernetes-namespace"]
    used = {each.command for each in templates(render("eks")) if account_of(each) == account}
    assert used == {job}


def account_of(template: Any) -> str:
    name: str = template.pod["serviceAccountName"]
    return name
