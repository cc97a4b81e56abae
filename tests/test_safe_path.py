"""Claims about the folders that recap's processes import from: never the current one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from job.errors import ExitCode
from job.launch.supervisor import supervise
from job.safe_path import OWN_FOLDER, safe_variables

ROOT = Path(__file__).parent.parent


def modules_imported_from(folder: Path) -> list[Path]:
    return list(folder.glob("*.imported"))


def test_recap_as_a_module_imports_nothing_from_the_current_folder(poisoned):
    words = [sys.executable, "-m", "job", "schema", "train"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(words, cwd=poisoned, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert modules_imported_from(poisoned) == []
    subprocess.run([sys.executable, "-c", "import yaml"], cwd=poisoned, check=True)
    assert modules_imported_from(poisoned), "the modules are poisonous"


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
    assert modules_imported_from(poisoned) == []
    assert "ended with 0" in outcome.message, outcome
    assert outcome.exit_code == ExitCode.BUG, (
        "it left no outcome, and could import all that it needs"
    )


def test_processes_import_the_checkout_that_started_them():
    # Without site packages (-S), job is only in the current folder.
    code = "from job.safe_path import safe_variables; print(safe_variables({}))"
    words = [sys.executable, "-S", "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert str(ROOT) in done.stdout

    words = [sys.executable, "-S", "-c", "import job.safe_path"]
    environment = os.environ | safe_variables({})
    child = subprocess.run(words, cwd="/", env=environment, check=False)
    assert child.returncode == 0


def test_folders_of_a_user_stay_first_and_are_named_once():
    given = {"PYTHONPATH": os.pathsep.join(["/mine", "", OWN_FOLDER])}
    wanted = os.pathsep.join(["/mine", OWN_FOLDER])
    assert safe_variables(given) == {"PYTHONSAFEPATH": "1", "PYTHONPATH": wanted}
