"""Claims about `recap submit docker`: the calls of docker, and what becomes of its answers.

docker is a stand-in that answers with docker's own messages.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from job.errors import ExitCode
from job.submit.docker import CERTIFICATES, Docker
from job.submit.docker_container import DockerContainer
from job.submit.submission import Submission
from tests.command_line import Recap
from tests.submit.conftest import RECORDS, StandIn, put, written
from tests.summarization.conftest import write_lines

ID = "4f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeeff0"


@pytest.fixture
def docker(stand_in: Callable[[str], StandIn], monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A docker in which nothing runs."""
    for name in CERTIFICATES:
        monkeypatch.delenv(name, raising=False)
    tool = stand_in("docker")
    tool.answers("info", out="[name=seccomp,profile=builtin name=cgroupns]\n")
    tool.answers("ps", out="")
    tool.answers("run", out=f"{ID}\n")
    return tool


@pytest.fixture
def submit(recap: Recap) -> Recap:
    return lambda *words: recap("submit", "docker", *words)


@pytest.fixture
def local(tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A training config that names folders here, some of them relative to the current one."""
    (tmp_path / "data").mkdir()
    write_lines(tmp_path / "data" / "train.jsonl", RECORDS)
    monkeypatch.chdir(tmp_path)
    data = {"train": "data/train.jsonl", "validation_fraction": 0.5}
    return written(
        tmp_path / "c.yaml",
        {
            "run": "r",
            "model": {"base": str(base_folder)},
            "data": data,
            "output": "runs",
            "limits": {"grace_seconds": 60},
        },
    )


def values_of(words: list[str], option: str) -> list[str]:
    """Return the words after each occurrence of an option."""
    found = []
    for word, following in pairwise(words):
        if word == option:
            found.append(following)
    return found


def mounts(words: list[str]) -> list[str]:
    return values_of(words, "--mount")


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_a_container_sees_the_configs_own_paths_and_writes_to_two(
    submit, docker, local, base_folder, tmp_path
):
    ended = submit(local, "--set", "training.epochs=1", "--work", tmp_path / "work")
    assert ended.code == 0, ended.err
    words = docker.calls[-1].words
    assert words[:2] == ["run", "--detach"]
    assert mounts(words) == [
        f"type=bind,source={tmp_path}/work,target=/work",
        f"type=bind,source={tmp_path}/c.yaml,target={tmp_path}/c.yaml,readonly",
        f"type=bind,source={base_folder},target={base_folder},readonly",
        f"type=bind,source={tmp_path}/data/train.jsonl,target={tmp_path}/data/train.jsonl,readonly",
        f"type=bind,source={tmp_path}/runs,target={tmp_path}/runs",
    ]
    assert words[-4:] == ["recap:train", f"{tmp_path}/c.yaml", "--set", "training.epochs=1"]
    assert after(words, "--workdir") == str(tmp_path)
    assert after(words, "--user") == f"{os.getuid()}:{os.getgid()}"
    assert (tmp_path / "work").is_dir(), "docker mounts only what is there"
    assert (tmp_path / "runs").is_dir()


def test_in_a_rootless_docker_the_job_runs_as_root_of_the_container(docker, tmp_path):
    target = Docker(tmp_path, docker=str(docker.path), environment={}, user="1000:1000")
    submission = Submission("train", "r", "s3://b/c.yaml", "ab" * 32)
    assert after(target.request(submission), "--user") == "1000:1000"
    docker.answers("info", out="[name=seccomp,profile=builtin name=rootless name=cgroupns]\n")
    words = target.request(submission)
    assert after(words, "--user") == "0:0"
    assert (after(words, "--cap-drop"), after(words, "--security-opt")) == (
        "ALL",
        "no-new-privileges",
    )


def test_a_container_may_do_no_more_than_it_must(submit, docker, local):
    submit(local)
    words = docker.calls[-1].words
    assert "--read-only" in words
    assert "--init" in words, "or the kernel keeps a stop from a process 1 that has only begun"
    assert (after(words, "--cap-drop"), after(words, "--security-opt")) == (
        "ALL",
        "no-new-privileges",
    )
    assert after(words, "--gpus") == "all"
    assert "RECAP_GPUS=required" in words, "or a GPU that torch does not see is not missed"
    assert int(after(words, "--stop-timeout")) > 60, (
        "docker's ten seconds are less than limits.grace_seconds"
    )


def test_no_secret_is_on_a_command_line_or_printed(submit, docker, local, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.setenv("MY_PASSWORD", "hunter2hunter2")
    dry = submit(local, "--dry-run")
    ended = submit(local)
    words = docker.calls[-1].words
    for secret in ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI", "hf_verysecret", "hunter2"):
        assert secret not in " ".join(words) + dry.out + dry.err + ended.out + ended.err
    named = values_of(words, "--env")
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"} <= set(named)
    assert "MY_PASSWORD" not in named


def test_a_companys_proxy_and_certificates_go_along(submit, docker, local, tmp_path, monkeypatch):
    bundle = tmp_path / "ca.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret-of-mine@proxy:3128")
    words = shlex.split(submit(local, "--no-plan", "--dry-run").out)
    named = values_of(words, "--env")
    assert {"AWS_CA_BUNDLE", "HTTPS_PROXY"} <= set(named)
    assert f"type=bind,source={bundle},target={bundle},readonly" in mounts(words)
    assert not [word for word in words if "secret-of-mine" in word]


def test_a_dry_run_prints_the_command_that_would_run_and_makes_nothing(
    submit, docker, local, tmp_path
):
    dry = submit(local, "--dry-run", "--no-gpu", "--network", "host", "--image", "other:1")
    words = shlex.split(dry.out)
    assert words[:2] == ["docker", "run"]
    assert "--gpus" not in words
    assert "RECAP_GPUS=required" not in words
    assert after(words, "--network") == "host"
    assert "other:1" in words
    assert [call.words[0] for call in docker.calls] == ["info"]
    assert not (tmp_path / "runs").exists()


def test_what_is_printed_follows_and_stops_the_container(submit, docker, local):
    lines = dict(line.split(maxsplit=1) for line in submit(local).out.splitlines())
    short = ID[:12]
    assert lines["submitted"] == short
    assert lines["follow"] == f"docker logs --follow {short}"
    assert lines["stop"] == f"docker stop {short}"


def test_a_config_and_places_on_s3_need_no_mount_but_work(submit, docker, s3, training, tmp_path):
    put(s3, "c.yaml", Path(written(tmp_path / "c.yaml", training)).read_bytes())
    words = shlex.split(submit(f"{s3.uri}/c.yaml", "--no-plan", "--dry-run").out)
    assert len(mounts(words)) == 1
    assert words[-1] == f"{s3.uri}/c.yaml"
    assert "--workdir" not in words


def test_the_same_config_does_not_run_twice(submit, docker, local):
    docker.answers("ps", out="0123456789ab\n")
    again = submit(local)
    assert again.code == ExitCode.RETRY
    assert "docker stop 0123456789ab" in again.err
    assert [call.words[0] for call in docker.calls] == ["info", "ps"]


@pytest.fixture
def ended(docker: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every container has ended with 65, after one line."""
    monkeypatch.setattr(DockerContainer, "seconds_between_looks", 0.01)
    docker.answers("inspect", out='{"Status": "exited", "ExitCode": 65}')
    docker.answers("logs", out="2026-01-31T02:00:00.0Z the job's line\n")


@pytest.mark.usefixtures("ended")
def test_wait_ends_with_the_containers_exit_code_and_shows_its_log(submit, docker, local):
    waited = submit(local, "--no-plan", "--wait")
    assert waited.code == 65
    assert waited.out.startswith(f"submitted  {ID[:12]}\n")
    assert "\nthe job's line\n" in waited.err
    (last,) = waited.err.splitlines()[-1:]
    assert json.loads(last)["message"] == "the job has ended"
    assert json.loads(last)["exit_code"] == 65


@pytest.mark.usefixtures("ended")
def test_wait_follows_the_job_of_the_same_config_that_runs_already(submit, docker, local):
    docker.answers("ps", out="0123456789ab\n")
    waited = submit(local, "--wait")
    assert waited.code == 65
    assert waited.out.startswith("running    0123456789ab\n")
    assert "run" not in [call.words[0] for call in docker.calls]
    assert "✓ data" not in waited.err, "what runs need not be planned"


def test_sigterm_ends_the_waiting_with_75_and_leaves_the_container(docker, local):
    docker.answers("inspect", out='{"Status": "running", "ExitCode": 0}')
    docker.answers("logs", out="")
    words = [sys.executable, "-m", "job", "submit", "docker", local, "--no-plan", "--wait"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stderr is not None
        while '"state": "running"' not in waiting.stderr.readline():
            assert waiting.poll() is None
        waiting.terminate()
        _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == ExitCode.RETRY
    assert "stopped following: the job goes on" in err
    assert f"docker stop {ID[:12]}" in err
    assert "stop" not in [call.words[0] for call in docker.calls]


def test_a_profile_that_the_container_cannot_have_is_a_warning(submit, docker, local, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert "aws configure export-credentials" in submit(local, "--no-plan", "--dry-run").err


@pytest.mark.parametrize(
    ("message", "code", "remedy"),
    [
        (
            "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
            "Is the docker daemon running?\n\nRun 'docker run --help' for more information",
            ExitCode.RETRY,
            "DOCKER_HOST",
        ),
        (
            "docker: permission denied while trying to connect to the Docker daemon socket at "
            "unix:///var/run/docker.sock",
            ExitCode.FORBIDDEN,
            "may not use docker",
        ),
        (
            'docker: Error response from daemon: could not select device driver "" with '
            "capabilities: [[gpu]].",
            ExitCode.MISSING,
            "--no-gpu",
        ),
        (
            "Unable to find image 'recap:train' locally\ndocker: Error response from daemon: "
            "pull access denied for recap, repository does not exist or may require 'docker "
            "login'.",
            ExitCode.MISSING,
            "--image",
        ),
        ("docker: invalid reference format.", ExitCode.CONFIG, "invalid reference format"),
    ],
)
def test_a_message_of_docker_becomes_an_error_with_its_code(
    submit, docker, local, message, code, remedy
):
    docker.answers("run", err=f"{message}\n", code=125)
    ended = submit(local)
    assert (ended.code, ended.out) == (code, "")
    assert remedy in ended.err


def test_an_evaluation_runs_in_the_image_of_nights_with_their_gpu(
    submit, docker, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    references = [{"id": each["id"], "summary": each["summaries"][0]} for each in RECORDS]
    write_lines(tmp_path / "test.jsonl", RECORDS)
    write_lines(tmp_path / "given.jsonl", references)
    places = {"input": "test.jsonl", "summaries": "given.jsonl", "output": "judged"}
    config = written(tmp_path / "c.yaml", {"run": "r", **places})
    ended = submit(config, "--set", "evaluation.bootstrap_samples=100", "--work", tmp_path / "work")
    assert ended.code == 0, ended.err
    assert "evaluate run r" in ended.err, "planned first"
    words = docker.calls[-1].words
    assert (after(words, "--entrypoint"), after(words, "--gpus")) == ("recap", "all")
    assert words[words.index("recap:summarize") :] == [
        "recap:summarize",
        "evaluate",
        f"{tmp_path}/c.yaml",
        "--set",
        "evaluation.bootstrap_samples=100",
    ]
    assert mounts(words)[2:] == [
        f"type=bind,source={tmp_path}/test.jsonl,target={tmp_path}/test.jsonl,readonly",
        f"type=bind,source={tmp_path}/given.jsonl,target={tmp_path}/given.jsonl,readonly",
        f"type=bind,source={tmp_path}/judged,target={tmp_path}/judged",
    ]
    assert "recap.command=evaluate" in values_of(words, "--label")
    assert after(submit(config, "--image", "mine", "--dry-run").out.split(), "mine") == "evaluate"
