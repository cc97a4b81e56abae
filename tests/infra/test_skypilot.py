"""Claims about infra/skypilot, whose keys SkyPilot's own parser checks in `make check-infra`."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.errors import ExitCode
from tests.infra import stack

ROOT = Path(__file__).parent.parent.parent
TASKS = {"train": "TrainJobDefinition", "night": "SummarizeJobDefinition"}
CRASHES = {134, 139}  # isolated in a few attempts, if a record causes them
KILLED = 137  # recap itself ends a run that is killed three times from one step


def task(name: str) -> dict[str, Any]:
    path = ROOT / "infra" / "skypilot" / f"{name}.yaml"
    found: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found


@pytest.mark.parametrize("name", TASKS)
def test_only_what_asks_for_it_is_run_again(name):
    recovery = task(name)["resources"]["job_recovery"]
    again = {int(ExitCode.RETRY), KILLED} | (CRASHES if name == "night" else set())
    assert set(recovery["recover_on_exit_codes"]) == again
    assert recovery["max_restarts_on_errors"] == 0


@pytest.mark.parametrize("name", TASKS)
def test_a_gpu_is_required_and_there_are_several_to_choose_from(name):
    found = task(name)
    assert found["envs"]["RECAP_GPUS"] == "required"
    assert len(found["resources"]["accelerators"]) >= 4
    assert found["resources"]["use_spot"]


def test_a_training_asks_for_the_notice_that_the_stacks_trainings_ask_for():
    container = stack.resources()["TrainJobDefinition"]["Properties"]["ContainerProperties"]
    (notice,) = [e["Value"] for e in container["Environment"] if e["Name"] == "RECAP_SPOT_NOTICE"]
    assert task("train")["envs"]["RECAP_SPOT_NOTICE"] == notice


@pytest.mark.parametrize("name", TASKS)
def test_the_setup_installs_what_the_image_has(name):
    setup = task(name)["setup"]
    (locks,) = re.findall(r"for lock in ([a-z ]+); do", setup)
    for lock in locks.split():
        assert f"infra/docker/locks/{lock}.txt" in setup.replace("$lock", lock)
        assert (ROOT / "infra" / "docker" / "locks" / f"{lock}.txt").is_file()
    wanted = {"build", "torch", "train"} | ({"summarize"} if name == "night" else set())
    assert set(locks.split()) == wanted
    (image,) = re.findall(r"BASE_IMAGE=python:(\d+\.\d+)", (ROOT / "Dockerfile").read_text("utf-8"))
    assert f"--python {image} " in setup


@pytest.mark.parametrize("name", TASKS)
def test_no_task_has_a_value_of_a_secret(name):
    secrets = task(name)["secrets"]
    assert set(secrets) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert set(secrets.values()) == {None}


def test_a_nights_date_must_be_named():
    """A recovery after midnight must mean the same day."""
    assert task("night")["envs"]["DATE"] is None
    assert '--var date="$DATE"' in task("night")["run"]
