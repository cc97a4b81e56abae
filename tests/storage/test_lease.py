"""Claims about leases: of several runs with one name, one writes, and one that lost it stops."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from job.errors import ExitCode, RetryError
from job.storage.holder import process_start, this_process
from job.storage.lease import GuardedStore, Lease, LeaseLostError, Terms, seconds_since_boot
from job.storage.local import LocalStore
from job.storage.open import open_store

LONG = Terms(lifetime=60, renewal=0.1)
SHORT = Terms(lifetime=0.6, renewal=0.1)
NEVER_RENEWED = Terms(lifetime=60, renewal=60)
ELSEWHERE = replace(this_process(), id="elsewhere", machine="another", name="another, pid 7")


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path):
    if request.param == "local":
        return LocalStore(str(tmp_path / "run"))
    return open_store(f"{request.getfixturevalue('s3').uri}/run")


class Clock:
    """A clock that stands still until it is set forward, or goes forward with every look."""

    def __init__(self, seconds_per_look=0.0):
        self.seconds = 1000.0
        self._step = seconds_per_look

    def __call__(self):
        self.seconds += self._step
        return self.seconds


def lease(store, holder=None, terms=SHORT, clock=seconds_since_boot):
    holder = holder or replace(this_process(), id=f"{time.monotonic_ns()}")
    return Lease(store, holder, terms, clock)


def impatient(store, holder=None):
    """Return the lease of a run for which a lifetime passes while it looks a few times."""
    return lease(store, holder, LONG, Clock(seconds_per_look=LONG.lifetime / 10))


def check_for(check: Callable[[], None], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check()
        time.sleep(0.02)


def test_a_second_run_on_this_machine_begins_only_after_the_first(store):
    first = lease(store, terms=LONG)
    second = lease(store, terms=LONG)
    first.acquire()
    with pytest.raises(RetryError, match="is being written by another run"):
        second.acquire()
    first.release()
    second.acquire()
    GuardedStore(store, second).write("a", b"1")
    second.release()


def test_a_run_elsewhere_that_still_renews_is_not_disturbed(store):
    first = lease(store, ELSEWHERE, LONG)
    second = lease(store, terms=LONG)
    first.acquire()
    with pytest.raises(RetryError, match="another, pid 7"):
        second.acquire()
    first.check()
    first.release()


def test_a_run_elsewhere_that_renews_no_more_loses_its_lease(store):
    clock = Clock()
    dead = lease(store, ELSEWHERE, NEVER_RENEWED, clock)
    dead.acquire()
    guarded = GuardedStore(store, dead)
    guarded.write("a", b"1")

    successor = impatient(store)
    successor.acquire()
    clock.seconds += NEVER_RENEWED.lifetime
    with pytest.raises(LeaseLostError) as lost:
        guarded.write("a", b"2")
    assert lost.value.exit_code == ExitCode.RETRY
    assert store.read("a") == b"1"
    for change in (lambda: guarded.delete("a"), lambda: guarded.upload(Path(__file__), "a")):
        with pytest.raises(LeaseLostError):
            change()
    successor.release()


def test_a_run_that_was_asleep_finds_that_another_took_over(store):
    asleep = lease(store, ELSEWHERE, LONG)
    asleep.acquire()
    store.write("lease/00000002.json", json.dumps({"holder": {"name": "the other"}}).encode())
    with pytest.raises(LeaseLostError, match="the other"):
        check_for(asleep.check, 10)
    asleep.release()
    assert json.loads(store.read("lease/00000001.json"))["released"] is False


def test_a_dead_process_of_this_machine_is_succeeded_at_once(store):
    done = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    holder = replace(this_process(), id="dead", pid=done.pid, started=process_start(done.pid))
    dead = lease(store, holder, Terms(lifetime=600, renewal=600))
    dead.acquire()
    done.kill()
    done.wait()
    successor = lease(store, terms=LONG)
    successor.acquire()
    successor.check()
    assert json.loads(store.read("lease/00000002.json"))["released"] is False
    successor.release()
    dead.release()


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="Linux counts ticks since the boot"
)
def test_a_process_is_identified_without_the_time_of_day():
    ticks = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    assert this_process().started == ticks


def test_a_write_after_the_lease_was_given_back_is_refused(store):
    mine = lease(store, terms=LONG)
    mine.acquire()
    guarded = GuardedStore(store, mine)
    mine.release()
    with pytest.raises(LeaseLostError, match="was released"):
        guarded.write("a", b"1")


class Slow(LocalStore):
    """A store whose uploads wait, and whose every other change fails once they do."""

    def __init__(self, uri):
        super().__init__(uri)
        self.begun = threading.Event()
        self.goes_on = threading.Event()

    def write(self, key, data, *, if_absent=False):
        if self.begun.is_set():
            raise RetryError("not reachable")
        super().write(key, data, if_absent=if_absent)

    def upload(self, source, key, progress=None):
        self.begun.set()
        self.goes_on.wait()


def test_a_write_under_way_that_outlives_the_lease_is_found(tmp_path):
    store = Slow(str(tmp_path / "run"))
    mine = lease(store)
    mine.acquire()
    guarded = GuardedStore(store, mine)
    upload = threading.Thread(target=guarded.upload, args=(Path(__file__), "a"), daemon=True)
    upload.start()
    with pytest.raises(LeaseLostError, match="could not be renewed"):
        check_for(guarded.check_changes, 10)
    store.goes_on.set()
    upload.join()
    guarded.check_changes()
    with pytest.raises(LeaseLostError):
        mine.check()
    mine.release()


def test_a_lease_lapses_if_a_write_in_progress_may_still_arrive(tmp_path):
    store = Slow(str(tmp_path / "run"))
    mine = lease(store, terms=LONG)
    mine.acquire()
    guarded = GuardedStore(store, mine)
    upload = threading.Thread(target=guarded.upload, args=(Path(__file__), "a"), daemon=True)
    upload.start()
    assert store.begun.wait(60)
    guarded.end()
    with pytest.raises(RetryError, match="is being written by another run"):
        lease(store, terms=LONG).acquire()
    store.goes_on.set()
    upload.join()
    with pytest.raises(LeaseLostError):
        mine.check()


class AtOnce:
    """A store whose users have all looked around before the first one goes on."""

    def __init__(self, store, users):
        self.uri = store.uri
        self._store = store
        self._gate = threading.Barrier(users)
        self._seen = threading.local()

    def list(self, prefix=""):
        found = list(self._store.list(prefix))
        if not hasattr(self._seen, "once"):
            self._seen.once = self._gate.wait()
        return iter(found)

    def __getattr__(self, name):
        return getattr(self._store, name)


def test_of_several_that_begin_at_once_one_wins(store):
    held = []
    refused = []
    together = AtOnce(store, 4)

    def begin(number):
        mine = lease(together, replace(ELSEWHERE, id=f"run {number}"), NEVER_RENEWED)
        try:
            mine.acquire()
            held.append(mine)
        except RetryError as error:
            refused.append(str(error))

    runs = [threading.Thread(target=begin, args=(number,)) for number in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(held) == 1
    assert len(refused) == 3
    assert all("another run began at the same moment (another, pid 7)" in why for why in refused)
    held[0].release()


class LostAnswer(LocalStore):
    """A store that answers its first guarded write only when another run has taken over."""

    def __init__(self, uri, asks_again, other):
        super().__init__(uri)
        self._asks_again = asks_again
        self._other = other

    def write(self, key, data, *, if_absent=False):
        other = self._other
        self._other = None
        super().write(key, data, if_absent=if_absent)
        if other:
            other.acquire()
            if self._asks_again:  # as boto3 does
                super().write(key, data, if_absent=if_absent)


@pytest.mark.parametrize("asks_again", [False, True])
def test_a_run_succeeded_before_it_was_answered_is_refused(tmp_path, caplog, asks_again):
    other = impatient(LocalStore(str(tmp_path / "run")), replace(ELSEWHERE, name="the other"))
    mine = lease(LostAnswer(str(tmp_path / "run"), asks_again, other), terms=LONG)
    logging.getLogger("recap").addHandler(caplog.handler)
    with pytest.raises(RetryError, match="the other"):
        mine.acquire()
    logging.getLogger("recap").removeHandler(caplog.handler)
    assert "ignores conditional writes" not in caplog.text
    other.check()
    other.release()


def test_an_answer_that_came_too_late_gives_no_right_to_write(tmp_path):
    clock = Clock()

    class Late(LocalStore):
        def write(self, key, data, *, if_absent=False):
            super().write(key, data, if_absent=if_absent)
            clock.seconds += LONG.lifetime

    mine = lease(Late(str(tmp_path / "run")), terms=NEVER_RENEWED, clock=clock)
    mine.acquire()
    with pytest.raises(LeaseLostError, match="could not be renewed"):
        mine.check()
    mine.release()


class Renewed(LocalStore):
    """A store whose lease somebody renews after the first look at its version."""

    def stat(self, key):
        found = super().stat(key)
        self.write(key, self.read(key) + b" ")
        return found


@pytest.mark.parametrize(
    "content",
    [
        b'{"holder": {"id": "1", "machine": "another", "pid": 7, "started": "", "name": "newer",'
        b' "node": "n1"}}',
        b'{"holder": {"name": "newer"}}',
        b'{"holder": "newer"}',
        b'["newer"]',
        b'{"hol',
        b"",
    ],
)
def test_a_lease_that_is_not_understood_is_alive_while_it_changes(tmp_path, content):
    store = LocalStore(str(tmp_path / "run"))
    store.write("lease/00000001.json", content)
    successor = impatient(store)
    successor.acquire()
    successor.release()
    assert [entry.key for entry in store.list()] == ["lease/00000002.json"]

    store.write("lease/00000003.json", content)
    with pytest.raises(RetryError, match="is being written by another run"):
        lease(Renewed(store.uri), terms=LONG).acquire()


class Forgetful(LocalStore):
    """A store that accepts conditions and ignores them, as some services do."""

    def write(self, key, data, *, if_absent=False):
        super().write(key, data)


def test_a_store_that_ignores_conditions_is_warned_of(tmp_path, caplog):
    logging.getLogger("recap").addHandler(caplog.handler)
    mine = lease(Forgetful(str(tmp_path / "run")))
    mine.acquire()
    mine.release()
    logging.getLogger("recap").removeHandler(caplog.handler)
    assert "ignores conditional writes" in caplog.text
