"""Claims about the stack's jobs and its night, as the template says them."""

import base64
import json
import os
import re
import subprocess
from datetime import UTC, datetime
from email import message_from_bytes
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from job.config.dates import with_date
from job.config.load import load_config
from job.launch.spot import notice_url
from job.storage.config_file import read_config
from job.summarization.shard import find_shard
from tests.infra import stack

JOBS = ["TrainJobDefinition", "SummarizeJobDefinition", "TrainNodesJobDefinition"]


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


def environment(name: str, **parameters: str) -> dict[str, str]:
    found = container(name, **parameters)["Environment"]
    return {each["Name"]: each["Value"] for each in found}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_has_a_read_only_root_no_root_user_and_an_end(name):
    properties = container(name)
    assert properties["ReadonlyRootFilesystem"] is True
    assert "Privileged" not in properties
    assert properties["LinuxParameters"] == {"InitProcessEnabled": True, "SharedMemorySize": "8192"}
    assert int(job(name)["Timeout"]["AttemptDurationSeconds"]) >= 3600
    assert "Command" not in properties, "a submission says it"
    assert properties["LogConfiguration"]["Options"]["awslogs-group"] == "/recap/recap"


def mounts(name: str) -> dict[str, str | None]:
    """Return the machine's folder at each path of the container; None for a fresh volume."""
    properties = container(name)
    sources = {
        each["Name"]: each.get("Host", {}).get("SourcePath") for each in properties["Volumes"]
    }
    return {
        each["ContainerPath"]: sources[each["SourceVolume"]] for each in properties["MountPoints"]
    }


def test_jobs_of_two_roles_share_no_folder_and_no_user():
    for name in JOBS:
        assert mounts(name).keys() == {"/work", "/work/cache"}
        assert mounts(name)["/work"] is None, "HOME, TMPDIR and compiled code are the job's own"
    by_role: dict[str, set[tuple[str, str | None]]] = {}
    for name in JOBS:
        shared = (container(name)["User"], mounts(name)["/work/cache"])
        by_role.setdefault(container(name)["JobRoleArn"], set()).add(shared)
    (training,), (night,) = by_role.values()
    assert training[0] != night[0]
    assert training[1] != night[1]
    assert not {user for user, _ in (training, night)} & {"0", "root", "0:0"}


def user_data(tmp_path: Path, failing: str = "", **parameters: str) -> str:
    """Run the start-up script of machines below a folder, and return its commands.

    The program `failing` fails.
    """
    data = stack.resources(**parameters)["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    message = message_from_bytes(base64.b64decode(data["UserData"]))
    (part,) = message.get_payload()
    script = part.get_payload()
    (tmp_path / "etc" / "ecs").mkdir(parents=True)
    (tmp_path / "var" / "lib").mkdir(parents=True)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("install", "iptables", "systemctl"):
        tool = tools / name
        end = "false" if name == failing else "true"
        lines = ["#!/bin/sh", f'echo {name} "$@" >> {tmp_path}/commands', end]
        tool.write_text("\n".join(lines), encoding="utf-8")
        tool.chmod(0o755)
    script = script.replace(" /etc/", f" {tmp_path}/etc/").replace('"/etc/', f'"{tmp_path}/etc/')
    environment = {"PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-eu", "-c", script], env=environment, check=True)
    return (tmp_path / "commands").read_text(encoding="utf-8")


def test_each_role_finds_its_own_cache_on_the_machine(tmp_path):
    commands = user_data(tmp_path)
    for name in JOBS:
        user = container(name)["User"].partition(":")[0]
        folder = mounts(name)["/work/cache"]
        assert f"install --directory --mode 0700 --owner {user} {folder}\n" in commands
    (mode,) = re.findall(r"^install --directory --mode (\d+) /var/lib/recap$", commands, re.M)
    assert int(mode, 8) & 0o022 == 0, "nobody renames another's folder"
    assert "systemctl" not in commands
    settings = (tmp_path / "etc/ecs/ecs.config").read_text(encoding="utf-8").splitlines()
    assert settings == ["ECS_AWSVPC_BLOCK_IMDS=true", "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION=10m"]


def test_a_night_cannot_ask_for_the_role_of_its_machine(tmp_path):
    # Its processes are in the machine's own network, as all jobs on one machine: the user differs.
    night = container("SummarizeJobDefinition")["User"].partition(":")[0]
    (rule,) = [line for line in user_data(tmp_path).splitlines() if line.startswith("iptables ")]
    assert "--append OUTPUT --destination 169.254.169.254 " in rule
    assert rule.endswith(f" --match owner --uid-owner {night} --jump REJECT")


def test_a_machine_that_cannot_shut_nights_out_runs_none(tmp_path):
    commands = user_data(tmp_path, failing="iptables")
    assert mounts("TrainJobDefinition")["/work/cache"] in commands
    assert mounts("SummarizeJobDefinition")["/work/cache"] not in commands


def test_a_proxy_is_told_to_the_machine_and_to_the_job(tmp_path):
    proxy = {"HttpsProxy": "http://proxy.example.org:3128"}
    assert "systemctl restart docker" in user_data(tmp_path, **proxy)
    settings = (tmp_path / "etc/ecs/ecs.config").read_text(encoding="utf-8").splitlines()
    direct = "localhost,127.0.0.1,169.254.169.254,169.254.170.2"
    assert "HTTP_PROXY=http://proxy.example.org:3128" in settings
    assert f"NO_PROXY={direct},/var/run/docker.sock" in settings
    for unit in ("docker", "ecs"):
        text = (tmp_path / f"etc/systemd/system/{unit}.service.d/proxy.conf").read_text("utf-8")
        assert f'"HTTPS_PROXY=http://proxy.example.org:3128" "NO_PROXY={direct}"' in text
    for name in JOBS:
        assert not environment(name).keys() & {
            "HTTPS_PROXY",
            "HTTP_PROXY",
            "NO_PROXY",
            "HF_ENDPOINT",
        }
        told = environment(name, **proxy, HfEndpoint="https://hub.example.org")
        assert told["HTTPS_PROXY"] == told["HTTP_PROXY"] == "http://proxy.example.org:3128"
        # Credentials and the Spot notice are on the machine.
        assert {"169.254.170.2", "169.254.169.254"} < set(told["NO_PROXY"].split(","))
        assert told["HF_ENDPOINT"] == "https://hub.example.org"


@pytest.mark.parametrize(("gpus", "image"), [("0", "ECS_AL2023"), ("4", "ECS_AL2023_NVIDIA")])
def test_a_job_with_gpus_requires_them_and_gets_machines_with_drivers(gpus, image):
    for name in JOBS:
        needs = {
            each["Type"]: each["Value"]
            for each in container(name, Gpus=gpus)["ResourceRequirements"]
        }
        assert needs.get("GPU", "0") == environment(name, Gpus=gpus)["RECAP_GPUS"] == gpus
    for resource in stack.resources(Gpus=gpus).values():
        if resource["Type"] == "AWS::Batch::ComputeEnvironment":
            (chosen,) = resource["Properties"]["ComputeResources"]["Ec2Configuration"]
            assert chosen == {"ImageType": image}


def test_logs_never_hold_up_a_job():
    for name in JOBS:
        options = container(name)["LogConfiguration"]["Options"]
        assert (options["mode"], options["max-buffer-size"]) == ("non-blocking", "25m")


def test_a_training_on_spot_machines_asks_for_their_notice():
    told = environment("TrainJobDefinition")
    template = stack.load()["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    assert template["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,  # such a job is in the machine's own network
    }
    assert notice_url(None, told) == "http://169.254.169.254/latest/meta-data/spot/instance-action"


def test_the_definitions_differ_in_what_they_are_for_only():
    one, *others = (container(name) for name in JOBS)
    for other in others:
        different = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
        assert different <= {
            "Image",
            "JobRoleArn",
            "LogConfiguration",
            "Environment",
            "User",
            "Volumes",
        }
        assert other["Environment"] == [
            each for each in one["Environment"] if each["Name"] != "RECAP_SPOT_NOTICE"
        ]
    assert job(JOBS[0])["RetryStrategy"] == job(JOBS[2])["RetryStrategy"]
    assert container(JOBS[0])["Image"] == container(JOBS[2])["Image"]


def test_the_hubs_token_is_a_secret_and_only_of_the_jobs_that_need_one():
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:hf-AbCdEf"
    for parameter in ("HfTokenSecretArn", "NightHfTokenSecretArn"):
        for name in JOBS:
            assert "Secrets" not in container(name)
            found = container(name, **{parameter: arn})
            wanted = [{"Name": "HF_TOKEN", "ValueFrom": arn}]
            is_for_nights = parameter.startswith("Night")
            is_night = name == "SummarizeJobDefinition"
            assert found.get("Secrets", []) == (wanted if is_for_nights == is_night else [])
            assert "HF_TOKEN" not in json.dumps(found["Environment"])
        statements = stack.policy("ExecutionRole", **{parameter: arn})
        reads = [each["Resource"] for each in statements if each["Sid"].endswith("HubToken")]
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
    told = {entry["Name"]: entry["Value"] for entry in always} | {
        due["Name"]: "2026-01-31T23:30:00Z"
    }
    late = datetime(2026, 2, 2, 12, tzinfo=UTC)
    assert with_date(variables, told, late) == {"date": "2026-01-31"}, (
        "in Berlin it was the 1st by then"
    )

    for name, value in told.items():
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
    index = {
        "AWS_BATCH_JOB_ARRAY_INDEX": str(size - 1),
        "AWS_BATCH_JOB_ARRAY_SIZE": str(size),
    }
    assert str(find_shard(None, None, index)) == f"{workers - 1}/{workers}"


def test_the_night_is_off_until_it_is_turned_on_and_its_deadline_with_it():
    off, on = stack.both(), stack.both(Night="on")
    assert off["NightSchedule"]["Properties"]["State"] == "DISABLED"
    assert "NightDueSchedule" not in off
    assert on["NightSchedule"]["Properties"]["State"] == "ENABLED"
    assert on["NightDueSchedule"]["Properties"].get("State", "ENABLED") == "ENABLED"
