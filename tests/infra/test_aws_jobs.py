"""Claims about the stack's jobs and its night, as the template says them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import pytest

from job.config.dates import with_date
from job.config.load import load_config
from job.errors import ExitCode
from job.launch.spot import notice_url
from job.storage.config_file import read_config
from job.summarization.shard import find_shard
from tests.infra import stack

JOBS = ["TrainJobDefinition", "SummarizeJobDefinition", "TrainNodesJobDefinition"]
RULES = 5  # that Batch takes
KILLED, TERMINATED = 128 + 9, 128 + 15
FIELDS = {"OnExitCode": "code", "OnReason": "reason", "OnStatusReason": "status"}


def job(name: str, **parameters: str) -> dict[str, Any]:
    properties: dict[str, Any] = stack.resources(**parameters)[name]["Properties"]
    return properties


def container(name: str, **parameters: str) -> dict[str, Any]:
    properties = job(name, **parameters)
    if "ContainerProperties" in properties:
        found: dict[str, Any] = properties["ContainerProperties"]
        return found
    (nodes,) = properties["NodeProperties"]["NodeRangeProperties"]
    assert nodes["TargetNodes"] == "0:", "every node"
    return dict(nodes["Container"])


def action(name: str, end: Mapping[str, str]) -> str:
    """Return Batch's action after an attempt that ended so: that of the first rule that matches.

    Without such a rule, Batch tries again.
    """
    for rule in job(name)["RetryStrategy"]["EvaluateOnExit"]:
        if all(
            fnmatchcase(end.get(FIELDS[key], ""), value)
            for key, value in rule.items()
            if key != "Action"
        ):
            return str(rule["Action"])
    return "RETRY"


@pytest.mark.parametrize("name", JOBS)
def test_batch_runs_again_only_on_the_exit_codes_that_ask_for_it(name):
    assert len(job(name)["RetryStrategy"]["EvaluateOnExit"]) <= RULES
    for code in ExitCode:
        if code is not ExitCode.DONE:
            end = {"code": str(code.value), "status": "Essential container in task exited"}
            assert action(name, end) == ("RETRY" if code is ExitCode.RETRY else "EXIT"), code


@pytest.mark.parametrize("name", JOBS)
def test_batch_runs_again_what_was_killed_from_outside(name):
    for end in (
        {"status": "Host EC2 (instance i-0123456789abcdef0) terminated."},
        {"code": str(KILLED), "status": "Essential container in task exited"},
        {"code": str(TERMINATED), "status": "Essential container in task exited"},
    ):
        assert action(name, end) == "RETRY", end
    missing = {
        "status": "Task failed to start",
        "reason": "CannotPullContainerError: no such image",
    }
    assert action(name, missing) == "EXIT"


@pytest.mark.parametrize("name", JOBS)
def test_a_crash_of_a_night_is_run_again_and_finds_the_record_to_blame(name):
    wanted = "RETRY" if name == "SummarizeJobDefinition" else "EXIT"
    assert [action(name, {"code": code}) for code in ("134", "139")] == [wanted] * 2


@pytest.mark.parametrize("name", JOBS)
def test_a_job_has_a_read_only_root_no_root_user_one_volume_and_an_end(name):
    properties = container(name)
    assert properties["ReadonlyRootFilesystem"] is True
    assert "Privileged" not in properties
    assert properties["User"] == "10001:10001"
    assert [mount["ContainerPath"] for mount in properties["MountPoints"]] == ["/work"]
    assert properties["LinuxParameters"] == {"InitProcessEnabled": True, "SharedMemorySize": "8192"}
    assert int(job(name)["Timeout"]["AttemptDurationSeconds"]) >= 3600
    assert "Command" not in properties, "a submission says it"
    assert properties["LogConfiguration"]["Options"]["awslogs-group"] == "/recap/recap"


def test_the_folder_that_jobs_write_to_is_made_for_any_user():
    (volume,) = container("TrainJobDefinition")["Volumes"]
    template = stack.load()["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    assert (
        f"install --directory --mode 1777 {volume['Host']['SourcePath']}\n"
        in template["UserData"]["Fn::Base64"]
    )
    assert template["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 2,  # from the container, for the Spot notice
    }


def test_a_training_on_spot_machines_asks_for_their_notice():
    told = {each["Name"]: each["Value"] for each in container("TrainJobDefinition")["Environment"]}
    assert notice_url(None, told) == "http://169.254.169.254/latest/meta-data/spot/instance-action"


def test_the_definitions_differ_in_what_they_are_for_only():
    one, *others = (container(name) for name in JOBS)
    for other in others:
        different = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
        assert different <= {"Image", "JobRoleArn", "LogConfiguration", "Environment"}
        assert other["Environment"] == [
            each for each in one["Environment"] if each["Name"] != "RECAP_SPOT_NOTICE"
        ]
    assert job(JOBS[0])["RetryStrategy"] == job(JOBS[2])["RetryStrategy"]
    assert container(JOBS[0])["Image"] == container(JOBS[2])["Image"]


def test_the_hubs_token_is_a_secret_and_only_where_there_is_one():
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:hf-AbCdEf"
    for name in JOBS:
        assert "Secrets" not in container(name)
        assert container(name, HfTokenSecretArn=arn)["Secrets"] == [
            {"Name": "HF_TOKEN", "ValueFrom": arn}
        ]
        assert "HF_TOKEN" not in json.dumps(container(name, HfTokenSecretArn=arn)["Environment"])
    reads = [
        s["Resource"]
        for s in stack.policy("ExecutionRole", HfTokenSecretArn=arn)
        if s["Sid"] == "HubToken"
    ]
    assert reads == [[arn]]


def night(**parameters: str) -> dict[str, Any]:
    target = stack.resources(Night="on", **parameters)["NightSchedule"]["Properties"]["Target"]
    found: dict[str, Any] = json.loads(target["Input"])
    return found


def test_the_night_is_about_the_day_before_it_was_due_in_the_stacks_zone(tmp_path, monkeypatch):
    asked = night(TimeZone="Europe/Berlin")["ContainerOverrides"]
    config, option, variable = asked["Command"]
    assert (config, option) == ("s3://recap-bucket/configs/nightly.yaml", "--var")
    variables = dict([variable.split("=")])
    (due,) = asked["Environment"]
    assert due == {"Name": "RECAP_SCHEDULED_AT", "Value": "<aws.scheduler.scheduled-time>"}
    always = container("SummarizeJobDefinition", TimeZone="Europe/Berlin")["Environment"]
    environment = {entry["Name"]: entry["Value"] for entry in always} | {
        due["Name"]: "2026-01-31T23:30:00Z"
    }
    late = datetime(2026, 2, 2, 12, tzinfo=UTC)
    assert with_date(variables, environment, late) == {"date": "2026-01-31"}, (
        "in Berlin it was the 1st by then"
    )

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "nightly.yaml"
    path.write_text(
        "run: nightly-{date}\ninput: in/{date}\nadapter: a\noutput: out/{date}\n", encoding="utf-8"
    )
    run = load_config("summarize", read_config(str(path)), (), variables).run
    assert run == "nightly-2026-01-31"
    pattern = stack.watching()["NightRecords"]["Properties"]["FilterPattern"]
    assert fnmatchcase(run, pattern.split('$.run = "')[1].split('"')[0]), "it counts as the night"


@pytest.mark.parametrize("workers", [1, 2, 40])
def test_several_workers_are_an_array_and_know_their_share(workers):
    asked = night(NightWorkers=str(workers))
    if workers == 1:  # Batch takes no array of one
        assert "ArrayProperties" not in asked
        return
    size = asked["ArrayProperties"]["Size"]
    assert size == workers
    environment = {
        "AWS_BATCH_JOB_ARRAY_INDEX": str(size - 1),
        "AWS_BATCH_JOB_ARRAY_SIZE": str(size),
    }
    assert str(find_shard(None, None, environment)) == f"{workers - 1}/{workers}"


def test_the_night_is_off_until_it_is_turned_on_and_its_deadline_with_it():
    off, on = stack.both(), stack.both(Night="on")
    assert off["NightSchedule"]["Properties"]["State"] == "DISABLED"
    assert "NightDueSchedule" not in off
    assert on["NightSchedule"]["Properties"]["State"] == "ENABLED"
    assert on["NightDueSchedule"]["Properties"].get("State", "ENABLED") == "ENABLED"
