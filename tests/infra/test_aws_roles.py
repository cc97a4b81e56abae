"""recap runs under the stack's roles, on a store that refuses all else; and no role allows more."""

import json
import signal
from fnmatch import fnmatchcase

import pytest

from job.cli import run
from job.errors import ExitCode
from tests.faults.trials import TrialRun
from tests.infra import stack
from tests.infra.roles import BUCKET, Role, evaluate_twice, fill, promote, recap

ROLES = ["TrainRole", "SummarizeRole", "ExecutionRole", "InstanceRole"]
ROLES += ["SchedulerRole", "NightDueRole", "EventsRole", "LookLaterRole"]
# Actions that take no resource.
UNBOUND = {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}
UNBOUND |= {"ecs:DiscoverPollEndpoint", "ec2:DescribeTags", "batch:DescribeJobs"}
OTHER_BUCKET = {"InputBucket": "mine", "TrainInput": "labelled/*", "NightInput": "calls/*"}
END = "summaries"  # the message of the metric filters: tests/infra/test_aws_alarms.py


@pytest.mark.infra  # a minute: three commands of recap in processes of their own
@pytest.mark.timeout(900)  # processes that load torch
def test_recap_runs_with_what_its_roles_allow_and_they_allow_no_more(
    s3, base_folder, guarded, aws_environment, tmp_path, trials
):
    config = fill(s3, base_folder)
    train, summarize = Role(stack.policy("TrainRole")), Role(stack.policy("SummarizeRole"))

    guarded.reset(train.plan)
    first = TrialRun(config, trials)
    code = first.interrupt(1, signal.SIGTERM)
    assert (code, train.refused) == (ExitCode.RETRY, []), first.log
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
    (end,) = [line for line in map(json.loads, said.splitlines()) if line["message"] == END]
    assert (end["run"], end["records"], end["rejects"]) == ("nightly", 5, 0), (
        "what the stack's metric filters read"
    )

    failing = "s3:AbortMultipartUpload"  # of uploads that break off, which no run here did
    for role in (train, summarize):
        assert {right for right in role.rights() - role.used if right[0] != failing} == set()


@pytest.mark.usefixtures("recap")
def test_what_a_role_does_not_allow_ends_the_job_as_forbidden(s3, base_folder, guarded):
    fill(s3, base_folder)
    role = Role(stack.policy("SummarizeRole"))
    guarded.reset(role.plan)
    code = run(["train", f"{s3.uri}/configs/train.yaml"])
    assert (code, role.refused[0][0]) == (ExitCode.FORBIDDEN, "s3:GetObject")


def test_no_role_has_a_wildcard_for_actions_or_a_resource_it_could_name():
    everything = {
        "HfTokenSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:hf",
        "Night": "on",
    } | OTHER_BUCKET
    for name in ROLES:
        for statement in stack.policy(name, **everything):
            actions = set(statement["Action"])
            assert not [action for action in actions if "*" in action], name
            assert "*" not in statement["Resource"] or actions <= UNBOUND, f"{name}: {actions}"


def test_jobs_can_delete_no_version_and_training_no_adapter():
    for name in ("TrainRole", "SummarizeRole"):
        role = Role(stack.policy(name, **OTHER_BUCKET))
        assert not [
            action for action, _ in role.rights() if "Version" in action or "Lifecycle" in action
        ]
        written = [
            where
            for action, where in role.rights()
            if action not in ("s3:GetObject", "s3:ListBucket")
        ]
        places = tuple(f"{BUCKET}/{prefix}/" for prefix in ("runs", "summaries", "champions"))
        assert all(where.startswith(places) for where in written)
    train = Role(stack.policy("TrainRole"))
    adapter = ("s3:DeleteObject", f"{BUCKET}/runs/support/adapter/adapter_model.safetensors")
    assert not [right for right in train.rights() if all(map(fnmatchcase, adapter, right))]


def test_a_night_reads_adapters_and_nothing_else_of_trainings():
    night = Role(stack.policy("SummarizeRole"))
    assert night.allows("s3:GetObject", f"{BUCKET}/runs/support/adapter/adapter_config.json")
    for kept in ("report.html", "evaluation.json", "tensorboard/events", "checkpoints/9/a.pt"):
        assert not night.allows("s3:GetObject", f"{BUCKET}/runs/support/{kept}"), kept
    assert not night.allows("s3:GetObject", f"{BUCKET}/data/train.jsonl")
    training = Role(stack.policy("TrainRole"))
    for other in ("conversations/a.jsonl", "summaries/a.jsonl"):
        assert not training.allows("s3:GetObject", f"{BUCKET}/{other}")
        assert not training.allows("s3:ListBucket", f"{BUCKET}?{other}")
    assert not night.allows("s3:ListBucket", f"{BUCKET}?data/")
    assert not night.allows("s3:ListBucket", f"{BUCKET}?")


def test_a_training_switches_the_champion_and_a_night_only_reads_it():
    pointer = f"{BUCKET}/champions/support.json"
    training, night = Role(stack.policy("TrainRole")), Role(stack.policy("SummarizeRole"))
    assert training.allows("s3:PutObject", pointer)
    assert not training.allows("s3:DeleteObject", pointer)
    assert night.allows("s3:GetObject", pointer)
    assert not night.allows("s3:PutObject", pointer)


def test_each_job_reads_its_own_keys_of_the_other_bucket():
    for name, reads, other in (
        ("TrainRole", "labelled/a.jsonl", "calls/a.jsonl"),
        ("SummarizeRole", "calls/a.jsonl", "labelled/a.jsonl"),
    ):
        role = Role(stack.policy(name, **OTHER_BUCKET))
        assert role.allows("s3:GetObject", f"arn:aws:s3:::mine/{reads}")
        assert not role.allows("s3:GetObject", f"arn:aws:s3:::mine/{other}")
        assert role.allows("s3:ListBucket", f"arn:aws:s3:::mine?{reads.partition('/')[0]}/")
        assert not role.allows("s3:ListBucket", f"arn:aws:s3:::mine?{other}")


def test_the_other_bucket_is_never_shared_by_default():
    assert stack.refusals(**OTHER_BUCKET) == stack.refusals() == []
    for missing in ("TrainInput", "NightInput"):
        given = {name: value for name, value in OTHER_BUCKET.items() if name != missing}
        assert stack.refusals(**given) == ["InputBucket needs TrainInput and NightInput."]


def test_machines_pull_no_image_and_read_no_log_with_their_own_role():
    role = stack.resources()["InstanceRole"]["Properties"]
    assert "ManagedPolicyArns" not in role
    services = {
        action.partition(":")[0]
        for statement in stack.policy("InstanceRole")
        for action in statement["Action"]
    }
    assert services == {"ecs", "ec2"}
    with_shell = stack.resources(SessionManager="on")["InstanceRole"]["Properties"]
    assert with_shell["ManagedPolicyArns"] == [
        "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
    ]


def test_only_alarms_of_this_account_and_rules_send_to_the_topic():
    policy = stack.resources()["AlarmsPolicy"]["Properties"]["PolicyDocument"]
    senders = {each["Principal"]["Service"]: each for each in policy["Statement"]}
    assert senders.keys() == {"cloudwatch.amazonaws.com", "events.amazonaws.com"}
    assert senders["cloudwatch.amazonaws.com"]["Condition"] == {
        "StringEquals": {"aws:SourceAccount": stack.ACCOUNT}
    }


def test_roles_are_for_this_account_alone():
    for name, resource in stack.both(Night="on").items():
        if resource["Type"] == "AWS::IAM::Role" and name != "InstanceRole":
            (trust,) = resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": stack.ACCOUNT}}, (
                name
            )
