"""Claims about the thread that commits checkpoints while the training continues."""

import threading
import time
from contextlib import suppress

import pytest

from job.errors import ForbiddenError, RetryError
from job.storage.lease import LeaseLostError
from job.training.uploads import Patience, Uploads

QUICK = Patience(seconds=10, tries=3, pause_seconds=0.01, sync_seconds=0.05)
# No copy of the event files but those that a checkpoint or the end causes.
RARE_COPIES = Patience(sync_seconds=600)


def commit_nothing(folder, step):
    """Do as a store that takes everything."""


def copy_nothing():
    """Do as a run without event files."""


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "checkpoint"
    made.mkdir()
    return made


def test_checkpoints_are_committed_in_order_and_then_deleted_here(tmp_path):
    committed = []

    def commit(folder, step):
        committed.append((folder.exists(), step))

    with Uploads(commit, copy_nothing, QUICK) as uploads:
        for step in range(1, 6):
            folder = tmp_path / f"checkpoint-{step}"
            folder.mkdir()
            uploads.put(folder, step)
    assert committed == [(True, step) for step in range(1, 6)]
    assert not list(tmp_path.iterdir())


def test_what_was_logged_after_the_last_checkpoint_is_copied_at_the_end():
    copied = []
    with Uploads(commit_nothing, lambda: copied.append("events"), RARE_COPIES):
        pass
    assert copied == ["events"]


def test_a_training_that_fails_commits_what_it_has_handed_over(folder):
    committed = []
    uploads = Uploads(lambda folder, step: committed.append(step), copy_nothing, QUICK)
    with suppress(ValueError), uploads:
        uploads.put(folder, 1)
        raise ValueError("the training failed")
    assert committed == [1]


def test_a_stop_that_ends_the_work_at_once_does_not_wait_for_uploads(folder):
    is_stuck = threading.Event()
    uploads = Uploads(lambda folder, step: is_stuck.wait(30) and None, copy_nothing, QUICK)
    start = time.monotonic()
    with suppress(KeyboardInterrupt), uploads:
        uploads.put(folder, 1)
        raise KeyboardInterrupt
    assert time.monotonic() - start < 5
    is_stuck.set()


def test_the_curves_up_to_a_checkpoint_are_copied_before_its_commit(folder):
    done = []

    def commit(folder, step):
        done.append(step)

    with Uploads(commit, lambda: done.append("events"), RARE_COPIES) as uploads:
        uploads.put(folder, 1)
    assert done == ["events", 1, "events"]


class BusyStore:
    """A store that is busy for so many commits."""

    def __init__(self, times):
        self.times_left = times

    def commit(self, folder, step):
        if self.times_left:
            self.times_left -= 1
            raise RetryError("busy")


def test_a_store_that_is_busy_for_a_while_is_tried_again(folder):
    store = BusyStore(2)
    with Uploads(store.commit, copy_nothing, QUICK) as uploads:
        uploads.put(folder, 1)
    assert store.times_left == 0
    assert not folder.exists()


def test_a_store_that_stays_busy_ends_the_run(folder):
    store = BusyStore(99)
    uploads = Uploads(store.commit, copy_nothing, QUICK)
    with pytest.raises(RetryError, match="busy"), uploads:
        uploads.put(folder, 2)
    assert store.times_left == 99 - QUICK.tries
    assert folder.exists(), "what was not committed stays"


@pytest.mark.parametrize("error", [ForbiddenError("no"), LeaseLostError("another")])
def test_a_lasting_error_is_raised_at_each_step_and_not_tried_again(folder, error):
    tried = []

    def commit(folder, step):
        tried.append(step)
        raise error

    uploads = Uploads(commit, copy_nothing, QUICK)
    with pytest.raises(type(error)), uploads:
        uploads.put(folder, 1)
    with pytest.raises(type(error)):
        uploads.check()
    assert tried == [1]


def test_a_store_slower_than_its_limit_ends_the_run(folder):
    is_stuck = threading.Event()
    patience = Patience(seconds=0.3)
    uploads = Uploads(lambda folder, step: is_stuck.wait(30) and None, copy_nothing, patience)
    with pytest.raises(RetryError, match=r"limits\.upload_minutes"), uploads:
        uploads.put(folder, 1)
    is_stuck.set()


def test_an_upload_that_hangs_is_noticed_while_the_training_goes_on(folder):
    is_stuck = threading.Event()
    has_begun = threading.Event()

    def commit(folder, step):
        has_begun.set()
        is_stuck.wait(30)

    with suppress(RetryError), Uploads(commit, copy_nothing, Patience(seconds=0.3)) as uploads:
        uploads.check()
        uploads.put(folder, 1)
        assert has_begun.wait(60)
        time.sleep(0.4)
        with pytest.raises(RetryError, match=r"limits\.upload_minutes"):
            uploads.check()
    is_stuck.set()


def test_event_files_are_copied_now_and_then_without_any_checkpoint():
    is_copied = threading.Event()
    with Uploads(commit_nothing, is_copied.set, QUICK):
        assert is_copied.wait(60)
