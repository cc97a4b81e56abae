"""Claims about what `make` runs, told by make itself without running it."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def commands(**environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "RECAP_TEST_S3_URI"}
    done = subprocess.run(
        ["make", "-n", "test"], cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_tests_know_no_account():
    assert "-u AWS_SECRET_ACCESS_KEY" in commands()
    assert "AWS_SHARED_CREDENTIALS_FILE=/dev/null" in commands()


def test_tests_of_a_named_store_know_its_account():
    said = commands(RECAP_TEST_S3_URI="s3://bucket/prefix")
    assert "-m pytest" in said
    assert "AWS_" not in said
    assert "-u HF_TOKEN" in said
