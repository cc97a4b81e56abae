"""The trial of a cluster: its two pods find each other, and it reports what is open."""

import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.infra.kustomize import CHECK, FOLDER, OVERLAYS, Manifest, of_kind, pods, render

pytestmark = pytest.mark.infra

SCRIPT = FOLDER / "components" / "check" / "check.py"


PLAN = """#!/bin/sh
echo "recap $*"
exit $PLAN_ENDS_WITH
"""


def check_job() -> Manifest:
    cron_job = of_kind(render("company"), "CronJob")[CHECK]
    job: Manifest = cron_job["spec"]["jobTemplate"]["spec"]
    return job


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def environment(tmp_path: Path, s3_endpoint: str) -> dict[str, str]:
    """Variables of the two pods: on loopback, with a store and a plan that is fine."""
    (tmp_path / "recap").write_text(PLAN, encoding="utf-8")
    (tmp_path / "recap").chmod(0o755)
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PLAN_ENDS_WITH": "0",
        "RECAP_CONFIG": "/etc/recap/train.yaml",
        "AWS_ENDPOINT_URL": s3_endpoint,
        "LISTENER": "127.0.0.1",
        "CHECK_PORT": str(free_port()),
        "CHECK_SECONDS": "0.2",
        "CHECK_FILE": str(tmp_path / "listening"),
    }


@contextmanager
def listening(environment: dict[str, str]) -> Iterator[None]:
    """Run the first pod until the second has tried."""
    command = [sys.executable, str(SCRIPT)]
    with subprocess.Popen(command, env=environment | {"JOB_COMPLETION_INDEX": "0"}) as first:
        while not Path(environment["CHECK_FILE"]).exists():
            assert first.poll() is None
            time.sleep(0.01)
        try:
            yield
        finally:
            first.kill()


def second(environment: dict[str, str]) -> tuple[int, list[str]]:
    """Run the second pod. Return its code and its lines."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env=environment | {"JOB_COMPLETION_INDEX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not ended.stderr
    return ended.returncode, ended.stdout.splitlines()


def test_a_pod_that_can_be_reached_ends_the_check_with_1(environment):
    with listening(environment):
        code, (store, policies, _) = second(environment)
    assert code == 1
    assert store.endswith("reached, as it must be")
    assert policies.endswith("REACHED: this cluster does not enforce network policies")


def test_a_pod_out_of_reach_is_what_the_check_wants(environment):
    code, (store, policies, plan) = second(environment)
    assert code == 0, (store, policies)
    assert "not reached" in policies
    assert "as it must be" in policies
    assert plan == "recap plan /etc/recap/train.yaml"


@pytest.mark.parametrize("ends_with", [66, 77])
def test_a_plan_that_fails_is_the_end_of_the_check(environment, ends_with):
    code, _ = second(environment | {"PLAN_ENDS_WITH": str(ends_with)})
    assert code == ends_with


def test_a_pod_without_a_name_is_reported(environment):
    code, (_, policies, _) = second(environment | {"LISTENER": "check-0.recap-check.invalid"})
    assert code == 1
    assert "HAS NO NAME" in policies


def test_a_store_out_of_reach_is_reported(environment):
    nowhere = f"http://127.0.0.1:{free_port()}"
    code, (store, *_) = second(environment | {"AWS_ENDPOINT_URL_S3": nowhere})
    assert code == 1
    assert store.startswith(f"{nowhere.removeprefix('http://')}: NOT REACHED")


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "s3.eu-central-1.amazonaws.com"),
        ("cn-north-1", "s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_on_aws_the_store_is_that_of_the_region(monkeypatch, region, host):
    """A private cluster may have a way to its own region alone."""
    way_to_store = runpy.run_path(str(SCRIPT))["way_to_store"]
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    assert way_to_store({}) == (host, 443)
    assert way_to_store({"region": "us-east-1"}) == ("s3.amazonaws.com", 443)


def test_a_store_of_the_config_is_tried_before_that_of_the_environment(environment, tmp_path):
    nowhere = f"http://127.0.0.1:{free_port()}"
    config = tmp_path / "train.yaml"
    config.write_text(f"storage: {{endpoint_url: '{nowhere}'}}\n", encoding="utf-8")
    code, (store, *_) = second(environment | {"RECAP_CONFIG": str(config)})
    assert code == 1
    assert store.startswith(f"{nowhere.removeprefix('http://')}: NOT REACHED")


def test_an_endpoint_that_is_none_is_reported(environment):
    code, (store, *_) = second(environment | {"AWS_ENDPOINT_URL_S3": "store"})
    assert code == 1
    assert store.startswith("the store: NOT REACHED: Invalid endpoint")


def test_a_proxy_is_tried_in_place_of_the_store_behind_it(environment):
    store = environment["AWS_ENDPOINT_URL"].removeprefix("http://")
    behind = environment | {"AWS_ENDPOINT_URL": "https://s3.invalid"}
    code, (line, *_) = second(behind | {"HTTPS_PROXY": f"http://{store}"})
    assert (code, line) == (0, f"{store}: reached, as it must be")
    code, (line, *_) = second(behind | {"HTTPS_PROXY": f"http://{store}", "NO_PROXY": ".invalid"})
    assert code == 1
    assert line.startswith("s3.invalid:443: NOT REACHED")


def test_the_first_pod_has_a_name_once_it_listens():
    job = check_job()
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 2, 2)
    (container,) = job["template"]["spec"]["containers"]
    service = of_kind(render("company"), "Service")[job["template"]["spec"]["subdomain"]]["spec"]
    assert service["clusterIP"] == "None"
    assert "publishNotReadyAddresses" not in service
    assert service["selector"].items() <= job["template"]["metadata"]["labels"].items()
    probe = container["readinessProbe"]["exec"]["command"]  # a probe by TCP would be a connection
    assert probe == ["test", "-e", "/work/listening"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables["LISTENER"] == "$(JOB_NAME)-0.recap-check"


def test_the_second_pod_decides_how_the_check_ends():
    job = check_job()
    assert job["successPolicy"] == {"rules": [{"succeededIndexes": "1"}]}
    assert job["backoffLimit"] == 0
    assert of_kind(render("company"), "CronJob")[CHECK]["spec"]["suspend"] is True


def test_the_check_uses_image_and_account_of_trainings_and_no_gpu():
    check, training = pods(render("company"))[CHECK], pods(render("company"))["recap-train"]
    for key in ("serviceAccountName", "securityContext"):
        assert check[key] == training[key]
    (tries,), (trains,) = check["containers"], training["containers"]
    for key in ("image", "imagePullPolicy", "securityContext", "envFrom"):
        assert tries[key] == trains[key]
    same = {variable["name"]: variable for variable in trains["env"]}
    del same["RECAP_GPUS"]
    assert same.items() <= {variable["name"]: variable for variable in tries["env"]}.items()
    volumes = {volume["name"]: volume for volume in training["volumes"]}
    assert volumes["config"] in check["volumes"]
    assert "nvidia.com/gpu" not in tries["resources"]["limits"]


def test_no_policy_opens_the_port_of_the_check():
    port = runpy.run_path(str(SCRIPT))["PORT"]
    for overlay in OVERLAYS:
        for policy in of_kind(render(overlay), "NetworkPolicy").values():
            spec = policy["spec"]
            for rule in (*spec.get("egress", ()), *spec.get("ingress", ())):
                assert port not in {each["port"] for each in rule.get("ports", ())}
