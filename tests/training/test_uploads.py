"""Claims about the thread that takes checkpoints to storage."""

import threading
import time

import pytest

from job.errors import ForbiddenError, RetryError
from job.storage.lease import LeaseLostError
from job.training.uploads import Patience, Uploads

QUICK = Patience(seconds=10, tries=3, pause_seconds=0.01, sync_seconds=0.05)


def folders(tmp_path, count):
    made = [tmp_path / f"checkpoint-{step}" for step in range(1, count + 1)]
    for folder in made:
        folder.mkdir()
    return made


def test_checkpoints_are_committed_in_order_and_then_gone_here(tmp_path):
    done = []
    uploads = Uploads(
        lambda folder, step: done.append((folder.exists(), step)), lambda: None, QUICK
    )
    for step, folder in enumerate(folders(tmp_path, 5), start=1):
        uploads.put(folder, step)
    uploads.finish()
    assert done == [(True, step) for step in range(1, 6)]
    assert not list(tmp_path.iterdir())


def test_what_was_logged_after_the_last_checkpoint_is_copied_at_the_end():
    copied = []
    Uploads(
        lambda folder, step: None, lambda: copied.append("events"), Patience(sync_seconds=600)
    ).finish()
    assert copied == ["events"]


def test_the_curves_up_to_a_checkpoint_are_there_before_it_counts(tmp_path):
    done = []
    uploads = Uploads(
        lambda folder, step: done.append(step),
        lambda: done.append("events"),
        Patience(sync_seconds=600),
    )
    uploads.put(folders(tmp_path, 1)[0], 1)
    uploads.finish()
    assert done == ["events", 1, "events"]


def test_a_service_that_fails_for_a_while_is_borne_and_one_that_goes_on_ends_the_run(tmp_path):
    left = [2]

    def commit(folder, step):
        if left[0]:
            left[0] -= 1
            raise RetryError("busy")

    uploads = Uploads(commit, lambda: None, QUICK)
    uploads.put(folders(tmp_path, 1)[0], 1)
    uploads.finish()
    left[0] = 99
    uploads = Uploads(commit, lambda: None, QUICK)
    (tmp_path / "again").mkdir()
    uploads.put(tmp_path / "again", 2)
    with pytest.raises(RetryError, match="busy"):
        uploads.finish()
    assert left[0] == 99 - QUICK.tries
    assert (tmp_path / "again").exists(), "what did not arrive stays"


@pytest.mark.parametrize("error", [ForbiddenError("no"), LeaseLostError("another")])
def test_what_will_not_pass_is_raised_at_the_next_step_and_not_tried_again(tmp_path, error):
    tried = []

    def commit(folder, step):
        tried.append(step)
        raise error

    uploads = Uploads(commit, lambda: None, QUICK)
    uploads.put(folders(tmp_path, 1)[0], 1)
    with pytest.raises(type(error)):
        uploads.finish()
    with pytest.raises(type(error)):
        uploads.check()
    assert tried == [1]


def test_a_store_slower_than_its_limit_ends_the_run(tmp_path):
    stuck = threading.Event()
    uploads = Uploads(
        lambda folder, step: stuck.wait(30) and None, lambda: None, Patience(seconds=0.3)
    )
    uploads.put(folders(tmp_path, 1)[0], 1)
    with pytest.raises(RetryError, match=r"limits\.upload_minutes"):
        uploads.finish()
    stuck.set()


def test_an_upload_that_hangs_is_noticed_while_the_training_goes_on(tmp_path):
    stuck, begun = threading.Event(), threading.Event()

    def commit(folder, step):
        begun.set()
        stuck.wait(30)

    uploads = Uploads(commit, lambda: None, Patience(seconds=0.3))
    uploads.check()
    uploads.put(folders(tmp_path, 1)[0], 1)
    assert begun.wait(10)
    time.sleep(0.4)
    with pytest.raises(RetryError, match=r"limits\.upload_minutes"):
        uploads.check()
    stuck.set()


def test_event_files_are_copied_now_and_then_without_any_checkpoint():
    copied = threading.Event()
    uploads = Uploads(lambda folder, step: None, copied.set, QUICK)
    assert copied.wait(10)
    uploads.finish()
