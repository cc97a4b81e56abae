"""Claims about processes that the kernel kills for memory: at the own limit, that is final."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.errors import ExitCode
from job.launch.memory import ControlGroup, MemoryCounts, own_control_group
from job.launch.outcome import End, Outcome, judge
from job.launch.supervisor import supervise

MIB = 1 << 20


def group_of_version_2(folder: Path, kills: int = 0, at_limit: int = 0) -> ControlGroup:
    lines = [f"low 0\nhigh 0\nmax {at_limit * 9}\noom {at_limit}\noom_kill {kills}\n"]
    (folder / "memory.events").write_text("".join(lines))
    (folder / "memory.max").write_text(f"{3 << 30}\n")
    return ControlGroup(folder, 2)


def group_of_version_1(folder: Path, kills: int = 0, at_limit: int = 0) -> ControlGroup:
    text = f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"
    (folder / "memory.oom_control").write_text(text)
    (folder / "memory.failcnt").write_text(f"{at_limit}\n")
    (folder / "memory.limit_in_bytes").write_text(f"{3 << 30}\n")
    return ControlGroup(folder, 1)


VERSIONS = [group_of_version_1, group_of_version_2]


@pytest.mark.parametrize("write", VERSIONS)
def test_a_kill_at_the_limit_is_told_from_one_of_the_whole_machine(tmp_path: Path, write):
    group = write(tmp_path, kills=2, at_limit=5)
    before = group.counts()
    assert before == MemoryCounts(2, 5)
    assert group.kill_since(before) is None
    write(tmp_path, kills=3, at_limit=5)  # the machine's memory was used up, by whomever
    assert group.kill_since(before) is None
    write(tmp_path, kills=2, at_limit=9)  # the page cache was at the limit
    assert group.kill_since(before) is None
    write(tmp_path, kills=3, at_limit=6)
    assert (
        group.kill_since(before) == "a process was killed at the container's memory limit of 3 GiB"
    )


def test_a_limit_that_the_pod_met_first_is_known_by_the_peak(tmp_path: Path):
    # As in a pod with one container: `oom` is counted in the pod's group, `oom_kill` in this one.
    group = group_of_version_2(tmp_path)
    before = group.counts()
    group_of_version_2(tmp_path, kills=1)
    assert group.kill_since(before) is None, "before Linux 5.19 there is no peak"
    peak = tmp_path / "memory.peak"
    peak.write_text(f"{2 << 30}\n")
    assert group.kill_since(before) is None, "the machine had none, and this group had room"
    peak.write_text(f"{(3 << 30) - 2 * MIB}\n")
    assert "memory limit of 3 GiB" in str(group.kill_since(before))
    assert group.kill_since(group.counts()) is None, "nobody was killed since"
    (tmp_path / "memory.max").write_text("max\n")
    assert group.kill_since(before) is None


@pytest.mark.parametrize("write", VERSIONS)
@pytest.mark.parametrize("is_mounted_alone", [True, False])
def test_the_own_group_is_found_in_a_container_and_on_a_host(
    tmp_path: Path, write, is_mounted_alone: bool
):
    version = VERSIONS.index(write) + 1
    mount = tmp_path / "cgroup"
    root = mount / "memory" if version == 1 else mount
    folder = root if is_mounted_alone else root / "pods" / "one"
    folder.mkdir(parents=True)
    write(folder)
    own = tmp_path / "own"
    line = "4:cpuset,memory:/pods/one" if version == 1 else "0::/pods/one"
    own.write_text(f"9:name=systemd:/\n{line}\n")
    assert own_control_group(mount, own) == ControlGroup(folder, version)


def test_a_machine_without_control_groups_counts_nothing(tmp_path: Path):
    for own in (tmp_path / "none", tmp_path):
        group = own_control_group(tmp_path, own)
        assert group.counts() == MemoryCounts(0, 0)
        assert group.limit_gib() is None
    unlimited = group_of_version_2(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert unlimited.limit_gib() is None


KILLED_AT_LIMIT = """
import os, sys
from pathlib import Path
Path(sys.argv[1]).write_text("oom 1\\noom_kill 1\\n")
os.kill(os.getpid(), 9)
"""


def test_a_trainer_killed_at_the_limit_is_final(tmp_path: Path):
    group = group_of_version_2(tmp_path)
    command = [sys.executable, "-c", KILLED_AT_LIMIT, str(tmp_path / "memory.events")]
    outcome = supervise(command, tmp_path, 1, 10, memory=group)
    assert outcome.exit_code == ExitCode.CONFIG
    assert "memory limit of 3 GiB: give the container more" in outcome.message


BROKEN = Outcome(ExitCode.BUG, "RuntimeError: connection closed by peer", "unclear")
STOPPED = Outcome(ExitCode.RETRY, "stopped by a signal", "signal")
DONE = Outcome(ExitCode.DONE, "done")
DATA = Outcome(ExitCode.DATA, "bad row")


@pytest.mark.parametrize(
    ("outcomes", "is_stopping", "code"),
    [
        ({0: BROKEN}, False, ExitCode.CONFIG),  # it met the death of the other
        ({0: STOPPED}, False, ExitCode.CONFIG),  # the launcher stopped it
        ({0: BROKEN, 1: BROKEN}, False, ExitCode.CONFIG),  # a process below them was killed
        ({0: DATA}, False, ExitCode.DATA),
        ({0: DONE, 1: DONE}, False, ExitCode.DONE),
        ({0: STOPPED}, True, ExitCode.RETRY),
    ],
)
def test_a_kill_at_the_limit_explains_what_is_unclear(outcomes, is_stopping: bool, code: ExitCode):
    end = End(1, processes=2, several=True, stop_asked=is_stopping, at_memory_limit="killed")
    assert judge(outcomes, end).exit_code == code


@pytest.fixture
def small_group() -> Iterator[Path]:
    """Make a control group with a limit of 200 MiB. Needs root."""
    above = own_control_group()
    if above.folder is None:
        pytest.skip("no control groups here")
    folder = above.folder / f"recap-{uuid.uuid4().hex}"
    limit = "memory.max" if above.version == 2 else "memory.limit_in_bytes"
    try:
        folder.mkdir()
        (folder / limit).write_text(str(200 * MIB))
    except OSError:
        pytest.skip("no control group can be made here")
    yield folder
    folder.rmdir()


SUPERVISE_A_GLUTTON = """
import os, sys
from pathlib import Path
from job.launch.supervisor import supervise
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
glutton = "eaten = []\\nwhile True: eaten.append(bytearray(1 << 24))"
outcome = supervise([sys.executable, "-c", glutton], Path(sys.argv[2]), 1, 10)
print(outcome.message)
os._exit(outcome.exit_code)
"""


def test_the_kernel_kills_a_trainer_and_the_supervisor_knows_why(small_group: Path, tmp_path: Path):
    command = [sys.executable, "-c", SUPERVISE_A_GLUTTON, str(small_group), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == ExitCode.CONFIG, done.stderr
    assert "a process was killed at the container's memory limit of 0.2 GiB" in done.stdout
