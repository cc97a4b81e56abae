"""Claims about which checkpoints there are, at every moment."""

import uuid
from types import SimpleNamespace

import pytest

from job.errors import MissingError, OutputError, RetryError
from job.storage.folders import fetch_folder
from job.storage.local import LocalStore
from job.training.checkpoints import fetch_newest, list_steps, newest_step, publish_checkpoint
from job.training.fit import commit
from job.training.uploads import Patience, Uploads


class Watched(LocalStore):
    """A folder that notes, around each change, the newest step that a reader can fetch."""

    def __init__(self, uri, scratch):
        super().__init__(uri)
        self._scratch = scratch
        self.newest = []

    def upload(self, source, key, progress=None):
        self._note()
        super().upload(source, key, progress)
        self._note()

    def write(self, key, data, *, if_absent=False):
        super().write(key, data, if_absent=if_absent)
        self._note()

    def delete(self, key):
        super().delete(key)
        self._note()

    def _note(self):
        self.newest.append(max(filter(self._is_whole, list_steps(self)), default=0))

    def _is_whole(self, step):
        try:
            fetch_folder(self, f"checkpoints/step-{step:08d}", self._scratch / uuid.uuid4().hex)
        except MissingError:
            # There is no manifest. A file that differs from its manifest raises DamagedError, which
            # fails the test.
            return False
        return True


class Failing(Watched):
    """A watched folder that fails once to change a key with this ending.

    `done` is True if it makes the change and only its answer is lost.
    """

    def __init__(self, uri, scratch, change, key, done):
        super().__init__(uri, scratch)
        self._failure = (change, key)
        self._done = done
        self._has_failed = False

    def write(self, key, data, *, if_absent=False):
        self._change(
            "write", key, lambda: super(Failing, self).write(key, data, if_absent=if_absent)
        )

    def delete(self, key):
        self._change("delete", key, lambda: super(Failing, self).delete(key))

    def _change(self, change, key, action):
        wanted, end = self._failure
        fails = change == wanted and key.endswith(end) and not self._has_failed
        if not fails or self._done:
            action()
        if fails:
            self._has_failed = True
            raise RetryError("503 SlowDown")


def run_in(store):
    training = SimpleNamespace(keep_last=1)
    return SimpleNamespace(
        store=store, config=SimpleNamespace(training=training), identity=lambda: {"processes": 1}
    )


RENAME = "give this one another name (run)"


def checkpoint_of(step, folder):
    folder.mkdir(exist_ok=True)
    for name in ("adapter", "optimizer"):
        (folder / name).write_text(f"{name} of step {step}")
    return folder


def test_there_is_never_less_than_what_was_committed_and_never_a_part(tmp_path):
    store = Watched(str(tmp_path / "run"), tmp_path / "scratch")
    for step in (2, 4, 6):
        commit(run_in(store), checkpoint_of(step, tmp_path / "checkpoint"), step)
    assert set(store.newest) == {0, 2, 4, 6}
    assert store.newest == sorted(store.newest)
    assert list_steps(store) == [6]


@pytest.mark.parametrize("done", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("delete", "step-00000002/manifest.json"),
        ("delete", "step-00000002/adapter"),
        ("write", "step-00000004/manifest.json"),
    ],
)
def test_a_store_that_fails_once_loses_nothing_that_was_committed(tmp_path, change, key, done):
    store = Failing(str(tmp_path / "run"), tmp_path / "scratch", change, key, done)

    def commit_here(folder, step):
        commit(run_in(store), folder, step)

    with Uploads(commit_here, lambda: None, Patience(pause_seconds=0)) as uploads:
        for step in (2, 4, 6):
            uploads.put(checkpoint_of(step, tmp_path / f"checkpoint-{step}"), step)
    assert store.newest == sorted(store.newest)
    assert list_steps(store) == [6], "what was not removed at once goes with the next commit"


def test_what_was_not_committed_is_not_the_newest_checkpoint(tmp_path):
    store = LocalStore(str(tmp_path / "run"))
    assert newest_step(store) is None
    publish_checkpoint(checkpoint_of(2, tmp_path / "checkpoint"), store, 2, {"processes": 1})
    store.write("checkpoints/step-00000004/adapter", b"on its way when the machine died")
    assert newest_step(store) == 2


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"fingerprint": "g"}, f"f there, g here): {RENAME}"),
        ({"processes": 2}, f"1 there, 2 here): {RENAME}, or run it in 1 processes (GPUs) again"),
        ({"base": "c"}, f"b there, c here): {RENAME}"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_what_helps(tmp_path, change, remedy):
    store = LocalStore(str(tmp_path / "run"))
    identity = {"fingerprint": "f", "base": "b", "processes": 1}
    publish_checkpoint(checkpoint_of(2, tmp_path / "checkpoint"), store, 2, identity)
    with pytest.raises(OutputError) as caught:
        fetch_newest(store, tmp_path / "target", identity | change)
    assert str(caught.value).endswith(f"({next(iter(change))}: {remedy}")


def test_a_checkpoint_that_is_damaged_in_storage_is_mended_by_the_same_one(tmp_path):
    store = LocalStore(str(tmp_path / "run"))
    folder = checkpoint_of(2, tmp_path / "checkpoint")
    publish_checkpoint(folder, store, 2, {"processes": 1})
    store.write("checkpoints/step-00000002/optimizer", b"optimizer of step 9")
    publish_checkpoint(folder, store, 2, {"processes": 1})
    assert fetch_newest(store, tmp_path / "target", {"processes": 1}) is not None


def test_nothing_of_another_runs_checkpoint_is_fetched(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "optimizer.pt").write_bytes(b"a pickle")
    store = LocalStore(str(tmp_path / "run"))
    publish_checkpoint(tmp_path / "checkpoint", store, 2, {"fingerprint": "a", "processes": 2})
    with pytest.raises(OutputError, match=r"processes: 2 there, 1 here.*another name"):
        fetch_newest(store, tmp_path / "target", {"fingerprint": "a", "processes": 1})
    assert not (tmp_path / "target").exists()
