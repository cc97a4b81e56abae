"""Claims about a terminal whose encoding lacks the signs that recap prints."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRINT = "from job import cli; cli._replace_unknown_signs(); print('✓ – ✗ s3://… 漢 é')"


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, timeout=60)


def test_signs_that_the_encoding_lacks_are_printed_in_ascii(tmp_path):
    printed = run("-c", PRINT, cwd=tmp_path)
    assert printed.stdout.decode("latin-1").strip() == "+ - x s3://... ? é"


def test_a_command_prints_its_help_where_signs_are_lacking(tmp_path):
    asked = run("-m", "job", "plan", "--help", cwd=tmp_path)
    assert (asked.returncode, asked.stderr) == (0, b"")
    assert b"CONFIG is a path, s3://... or -" in asked.stdout
