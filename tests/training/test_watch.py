"""Claims about the watchdog: it ends what hangs, with all stacks, and what its supervisor left."""

import subprocess
import sys

import psutil

from job.errors import ExitCode
from job.launch.outcome import SUPERVISOR, read_outcomes

HANGS = (
    "import sys, time; from pathlib import Path; from job.training.watch import Watch\n"
    "def a_name_to_look_for():\n    time.sleep(60)\n"
    "with Watch(Path(sys.argv[1])).training(0.5):\n    a_name_to_look_for()\n"
)
WRITES_WITHOUT_RIGHT = (
    "import sys, time; from pathlib import Path; from job.training.watch import Watch\n"
    "from job.storage.lease import LeaseLostError\n"
    "def allowed():\n"
    "    if Path(sys.argv[1], 'lost').exists(): raise LeaseLostError('another run took over')\n"
    "with Watch(Path(sys.argv[1])).writing(allowed):\n"
    "    Path(sys.argv[1], 'lost').touch(); time.sleep(60); Path(sys.argv[1], 'written').touch()\n"
)
LONELY = (
    "import sys, time; from pathlib import Path; from job.training.watch import Watch\n"
    "Watch(Path('.')); print('there', flush=True); time.sleep(60)"
)


def test_a_training_that_hangs_is_ended_with_the_stacks_of_all_threads(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HANGS, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.RETRY
    assert "a_name_to_look_for" in done.stderr
    outcome = read_outcomes(tmp_path)[0]
    assert outcome.exit_code == ExitCode.RETRY
    assert outcome.silent
    assert "limits.stall_minutes" in outcome.message


def test_a_write_that_outlives_the_right_to_it_is_ended_with_the_process(tmp_path):
    code = subprocess.run(
        [sys.executable, "-c", WRITES_WITHOUT_RIGHT, str(tmp_path)], check=False
    ).returncode
    assert code == ExitCode.RETRY
    assert read_outcomes(tmp_path)[0].message == "another run took over"
    assert not (tmp_path / "written").exists()


def test_a_training_process_ends_with_its_supervisor(tmp_path):
    code = (
        "import os, subprocess, sys, time; "
        f"os.environ[{SUPERVISOR!r}] = str(os.getpid()); "
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE); "
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    above = subprocess.Popen(
        [sys.executable, "-c", code, LONELY], stdout=subprocess.PIPE, text=True
    )
    child = psutil.Process(int(above.stdout.readline()))
    above.kill()
    above.communicate()
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()
