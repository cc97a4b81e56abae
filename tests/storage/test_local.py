"""Claims about local files: full disks, read-only folders, links, and remains of killed writers."""

import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from job.errors import DataError, ExitCode, ForbiddenError, MissingError, OutputError
from job.storage.atomic import UNFINISHED, locked, new_file, sweep, write_file
from job.storage.local import LocalStore

FULL_DISK = """
import resource, sys
from pathlib import Path
from job.errors import RecapError
from job.storage.local import LocalStore

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store, source = LocalStore(sys.argv[1]), Path(sys.argv[2])
actions = {
    "write": lambda: store.write("a", bytes(1 << 20)),
    "upload": lambda: store.upload(source, "a"),
    "download": lambda: LocalStore(str(source.parent)).download("source", Path(sys.argv[1], "a")),
}
try:
    actions[sys.argv[3]]()
except RecapError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("action", ["write", "upload", "download"])
def test_a_full_disk_is_an_output_error_and_keeps_old_files(tmp_path, action):
    (tmp_path / "source").write_bytes(bytes(1 << 20))
    store = LocalStore(str(tmp_path / "store"))
    store.write("a", b"old")
    command = [
        sys.executable,
        "-c",
        FULL_DISK,
        str(tmp_path / "store"),
        str(tmp_path / "source"),
        action,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == ExitCode.OUTPUT, done.stderr
    assert "the file is too large: make room, or choose another output" in done.stdout
    assert os.listdir(tmp_path / "store") == ["a"]
    assert store.read("a") == b"old"


def test_a_file_in_place_of_a_folder_is_an_output_error(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    store = LocalStore(str(tmp_path / "file" / "below"))
    with pytest.raises(OutputError, match="something else is in the way") as caught:
        store.write("a", b"x")
    assert caught.value.exit_code == ExitCode.OUTPUT
    with pytest.raises(MissingError):
        store.read("a")
    assert list(store.list()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_read_only_folder_is_an_output_error(tmp_path):
    store = LocalStore(str(tmp_path))
    store.write("secret", b"x")
    (tmp_path / "secret").chmod(0)
    with pytest.raises(ForbiddenError, match="change its permissions"):
        store.read("secret")
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="read-only for this user"):
        store.write("a", b"x")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="only Linux has /proc")
def test_a_folder_that_accepts_no_files_is_an_output_error():
    with pytest.raises(OutputError, match="choose another output"):
        LocalStore("/proc/self/recap").write("a", b"x")


def test_a_link_that_leads_out_is_neither_followed_nor_deleted(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside):
        folder.mkdir()
    (outside / "a").write_bytes(b"mine")
    (inside / "file").symlink_to(outside / "a")
    (inside / "folder").symlink_to(outside)
    store = LocalStore(str(inside))
    for key in ("file", "folder/a", "folder/new"):
        for action in (
            store.read,
            store.stat,
            store.open,
            store.delete,
            lambda key: store.write(key, b"theirs"),
        ):
            with pytest.raises(DataError, match=f"inside/{key} leads out of .*, to {outside}"):
                action(key)
    assert os.listdir(outside) == ["a"]
    assert (outside / "a").read_bytes() == b"mine"


def test_a_link_to_a_folder_is_an_error_in_a_listing(tmp_path):
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "a").write_bytes(b"x")
    (tmp_path / "latest").symlink_to(tmp_path / "day")
    with pytest.raises(DataError, match=r"latest: is a link to .*remove the link"):
        list(LocalStore(str(tmp_path)).list())


def test_a_root_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    LocalStore(str(tmp_path / "link")).write("a", b"x")
    assert [entry.key for entry in LocalStore(str(tmp_path / "link")).list()] == ["a"]
    assert (tmp_path / "real" / "a").read_bytes() == b"x"


def test_a_name_that_is_not_utf8_is_an_error(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_bytes(b"x")
    with pytest.raises(DataError, match="is not valid UTF-8"):
        list(LocalStore(str(tmp_path)).list())


def test_files_of_killed_writers_are_never_listed(tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from job.storage.atomic import new_file
with new_file(Path({str(tmp_path)!r}) / "a") as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == -9
    assert [name.endswith(UNFINISHED) for name in os.listdir(tmp_path)] == [True]
    assert list(LocalStore(str(tmp_path)).list()) == []


def test_a_file_that_fails_half_way_is_deleted(tmp_path):
    def fail() -> None:
        with new_file(tmp_path / "a") as file:
            file.write(b"half")
            raise RuntimeError("as the test wants")

    with pytest.raises(RuntimeError, match="as the test wants"):
        fail()
    assert os.listdir(tmp_path) == []


def test_new_files_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        LocalStore(str(tmp_path)).write("a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_deleting_the_last_file_removes_its_folder_but_never_the_root(tmp_path):
    store = LocalStore(str(tmp_path / "root"))
    store.write("a/b/c", b"x")
    store.write("a/d", b"x")
    store.delete("a/b/c")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "d", "root"]
    store.delete("a/d")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["root"]


def test_an_empty_folder_is_deleted_unless_a_living_writer_uses_it(tmp_path):
    store = LocalStore(str(tmp_path))
    store.write("folder/a", b"x")
    killed = """
import os, pathlib, sys
from job.storage.atomic import new_file
with new_file(pathlib.Path(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "folder" / "b")], check=False)
    with new_file(tmp_path / "folder" / "c") as file:
        assert len(os.listdir(tmp_path / "folder")) == 3
        store.delete("folder/a")
        assert len(os.listdir(tmp_path / "folder")) == 1
        file.write(b"y")
    assert os.listdir(tmp_path / "folder") == ["c"]
    store.write("folder/d", b"x")
    store.delete("folder/c")
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "folder" / "b")], check=False)
    store.delete("folder/d")
    assert os.listdir(tmp_path) == []


def test_of_two_processes_only_one_is_in_a_locked_folder(tmp_path):
    script = f"""
from pathlib import Path
from job.storage.atomic import locked
print("waiting", flush=True)
with locked(Path({str(tmp_path)!r})):
    print(Path({str(tmp_path)!r}, "said").read_text())
"""
    with locked(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "waiting\n"
        (tmp_path / "said").write_text("after the first")
    assert other.communicate(timeout=60)[0] == "after the first\n"


@pytest.mark.parametrize(
    ("module", "step", "if_absent"),
    [(fcntl, "flock", False), (os, "replace", False), (os, "link", True)],
)
def test_a_sweep_at_any_step_of_a_write_spares_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, step: str, if_absent: bool
):
    real = getattr(module, step)
    swept = []

    def swept_first(*arguments: Any) -> Any:
        if not swept:
            swept.append(step)
            sweep(tmp_path)
        return real(*arguments)

    monkeypatch.setattr(module, step, swept_first)
    write_file(tmp_path / "a", b"whole", if_absent=if_absent)
    assert swept
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_sweeper_beside_a_writer_deletes_no_file(tmp_path: Path):
    ended = threading.Event()

    def sweeping() -> None:
        while not ended.is_set():
            sweep(tmp_path)

    thread = threading.Thread(target=sweeping)
    thread.start()
    try:
        for number in range(100):
            write_file(tmp_path / f"{number % 7}", f"whole {number}".encode())
    finally:
        ended.set()
        thread.join()
    found = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert found == {f"{number % 7}": f"whole {number}" for number in range(93, 100)}


def test_writers_that_delete_each_others_folder_all_succeed(tmp_path: Path):
    store, failed = LocalStore(str(tmp_path)), list[Exception]()

    def come_and_go(name: str) -> None:
        try:
            for _ in range(300):
                store.write(f"f/{name}", b"here")
                list(store.list("f"))
                store.delete(f"f/{name}")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
