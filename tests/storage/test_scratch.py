"""Claims about the cache and work folders: those of killed runs are deleted, others stay."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from job.errors import ExitCode, OutputError
from job.storage.scratch import UNTOUCHED_SECONDS, cache_folder, work_folder

RUN = """
import sys
from job.storage.scratch import work_folder
with work_folder("other") as folder:
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "weights").write_bytes(b"1")
    print(folder, flush=True)
    sys.stdin.read()
"""


def started() -> "tuple[subprocess.Popen[str], Path]":
    """A run in a process of its own, and its folder."""
    run = subprocess.Popen(
        [sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout
    return run, Path(run.stdout.readline().strip())


def end(run: "subprocess.Popen[str]", number: signal.Signals | None = None) -> None:
    if number:
        run.send_signal(number)
    run.communicate()


def left(places: Path) -> list[str]:
    return sorted(path.name for path in places.iterdir())


def test_a_run_leaves_nothing_however_it_ends(places):
    with suppress(ZeroDivisionError), work_folder("one") as folder:
        (folder / "file").write_bytes(b"1")
        assert folder.name.startswith("one-")
        raise ZeroDivisionError
    assert left(places) == []


def test_the_next_run_deletes_the_folders_of_killed_runs_only(places):
    (living, its_folder), (killed, its_remains) = started(), started()
    end(killed, signal.SIGKILL)
    assert (its_remains / "checkpoint" / "weights").exists()
    with work_folder("one") as mine:
        assert not its_remains.exists()
        assert (its_folder / "checkpoint" / "weights").exists()
        assert [name for name in left(places) if not name.startswith(".")] == sorted(
            [mine.name, its_folder.name]
        )
    end(living)
    assert left(places) == []


def test_an_interrupted_deletion_is_repeated(places):
    killed, remains = started()
    end(killed, signal.SIGKILL)
    (remains / "checkpoint" / "weights").unlink()
    (remains / "checkpoint").rmdir()
    remains.rmdir()
    with work_folder("one"):
        pass
    assert left(places) == []


def test_a_folder_of_another_machine_is_deleted_after_days_untouched(places):
    killed, remains = started()
    end(killed, signal.SIGKILL)
    lock = remains.with_name(f".{remains.name}.lock")
    lock.write_text("another machine, or this one before it was started again")
    with work_folder("one"):
        assert remains.exists()
    long_ago = time.time() - UNTOUCHED_SECONDS - 60
    for path in (lock, remains, *remains.rglob("*")):
        os.utime(path, (long_ago, long_ago))
    os.utime(remains / "checkpoint" / "weights")
    with work_folder("one"):
        assert remains.exists(), "it writes"
    os.utime(remains / "checkpoint" / "weights", (long_ago, long_ago))
    with work_folder("one"):
        assert not remains.exists()
    assert left(places) == []


def test_a_folder_that_was_never_locked_stays(places):
    (places / "somebody's").mkdir(parents=True)
    with work_folder("one"):
        pass
    assert left(places) == ["somebody's"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="only Linux has /proc")
def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setenv("RECAP_WORK", "/proc/self")
    with (
        pytest.raises(OutputError, match=r"/proc/self: cannot be written .*RECAP_WORK") as caught,
        work_folder("one"),
    ):
        pass
    assert caught.value.exit_code == ExitCode.OUTPUT


def test_the_cache_is_for_its_owner_alone_unless_somebody_made_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RECAP_CACHE", str(tmp_path / "new" / "cache"))
    monkeypatch.delenv("RECAP_WORK", raising=False)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    before = os.umask(0)
    try:
        with work_folder("run") as folder:
            private = [cache_folder(), folder.parent, folder]
        monkeypatch.setenv("RECAP_CACHE", str(tmp_path / "shared"))
        shared = cache_folder()
    finally:
        os.umask(before)
    assert folder.parent.parent == private[0]
    assert [path.stat().st_mode & 0o777 for path in (*private[:2], shared)] == [0o700, 0o700, 0o777]
