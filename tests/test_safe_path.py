"""Claims about where recap's processes import from: never from the current folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from job.errors import ExitCode
from job.launch.supervisor import supervise
from job.safe_path import OWN_FOLDER, safe_variables

ROOT = Path(__file__).parent.parent


def imported(folder: Path) -> list[Path]:
    return list(folder.glob("*.imported"))


def test_recap_as_a_module_imports_nothing_from_the_current_folder(poisoned):
    words = [sys.executable, "-m", "job", "schema", "train"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(words, cwd=poisoned, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert imported(poisoned) == []
    subprocess.run([sys.executable, "-c", "import yaml"], cwd=poisoned, check=True)
    assert imported(poisoned), "the modules are poisonous"


GRANDCHILD = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"


@pytest.mark.parametrize("words", [["-c", "import yaml, job"], ["-m", "job", "schema", "train"]])
@pytest.mark.parametrize("above", [[], ["-c", GRANDCHILD]])
@pytest.mark.parametrize("path", ["", ":", ":/nowhere", "/nowhere::"])
def test_a_training_process_imports_nothing_from_the_current_folder(
    poisoned, monkeypatch, tmp_path, words, above, path
):
    monkeypatch.chdir(poisoned)
    monkeypatch.setenv("PYTHONPATH", path)
    outcome = supervise([sys.executable, *above, *words], tmp_path, 1, 10)
    assert imported(poisoned) == []
    assert "ended with 0" in outcome.message, outcome
    assert outcome.exit_code == ExitCode.BUG, "it left no outcome, and imported all that it wanted"


def test_a_checkout_that_is_not_installed_is_imported_by_its_processes():
    """Without site packages, job is in the current folder alone."""
    code = "import json, os; from job.safe_path import *; print(json.dumps(safe_variables({})))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert str(ROOT) in done.stdout
    words = [sys.executable, "-S", "-c", "import job.safe_path"]
    subprocess.run(words, cwd="/", env=os.environ | safe_variables({}), check=True)


def test_the_folders_of_a_user_stay_first_and_no_folder_is_named_twice():
    given = {"PYTHONPATH": os.pathsep.join(["/mine", "", OWN_FOLDER])}
    wanted = os.pathsep.join(["/mine", OWN_FOLDER])
    assert safe_variables(given) == {"PYTHONSAFEPATH": "1", "PYTHONPATH": wanted}
