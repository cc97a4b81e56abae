"""Claims about the Makefile, answered by make itself without running a target's commands."""

import os
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def make(*arguments: str, **environment: str) -> str:
    unset = ("RECAP_TEST_S3_URI", "MAKEFLAGS", "MAKELEVEL")
    clean = {name: value for name, value in os.environ.items() if name not in unset}
    command = ["make", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def commands(**environment: str) -> str:
    return make("-n", "test", **environment)


def test_help_lists_every_target_on_one_screen():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    targets = {name for line in phony for name in line.split()}
    lines = make("help").splitlines()
    listed = {line.split()[1] for line in lines if line.startswith("  make ")}
    assert listed == targets
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120


def test_the_monthly_renewal_runs_targets_that_exist():
    workflow = (ROOT / ".github" / "workflows" / "renew.yml").read_text(encoding="utf-8")
    lines = re.findall(r"run: make ([a-z -]+)", workflow)
    called = {name for line in lines for name in line.split()}
    listed = {line.split()[1] for line in make("help").splitlines() if line.startswith("  make ")}
    assert {"lock", "image-locks", "audit"} <= called <= listed


def test_the_monthly_renewal_builds_both_images_from_nothing():
    text = (ROOT / ".github" / "workflows" / "renew.yml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["images"]
    builds = [step["run"] for step in job["steps"] if "docker build" in step.get("run", "")]
    assert "--pull --no-cache" in builds[0]
    built = {re.search(r"--target (\w+)", build).group(1) for build in builds}
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    commands = r'^FROM job AS (\w+)(?:\n(?!FROM).*)*\nENTRYPOINT \["recap"'
    assert built == set(re.findall(commands, dockerfile, re.MULTILINE)) != set()


def test_tests_know_no_account():
    assert "-u AWS_SECRET_ACCESS_KEY" in commands()
    assert "AWS_SHARED_CREDENTIALS_FILE=/dev/null" in commands()


def test_tests_of_a_named_store_know_its_account():
    said = commands(RECAP_TEST_S3_URI="s3://bucket/prefix")
    assert "-m pytest" in said
    assert "AWS_" not in said
    assert "-u HF_TOKEN" in said
