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
    """A folder that notes, before and after each change, the newest step that a reader can fetch."""

    def __init__(self, uri, scratch):
        super().__init__(uri)
        self._scratch, self.newest = scratch, []

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
        except (
            MissingError
        ):  # of the manifest; a file that is not what a manifest says is damage, and fails the test
            return False
        return True


class Failing(Watched):
    """The same, whose change of a key that ends so fails once: an answer that is lost comes after the change."""

    def __init__(self, uri, scratch, change, key, done):
        super().__init__(uri, scratch)
        self._failures, self._done = [(change, key)], done

    def write(self, key, data, *, if_absent=False):
        self._change(
            "write", key, lambda: super(Failing, self).write(key, data, if_absent=if_absent)
        )

    def delete(self, key):
        self._change("delete", key, lambda: super(Failing, self).delete(key))

    def _change(self, change, key, action):
        failure = next(
            ((what, end) for what, end in self._failures if what == change and key.endswith(end)),
            None,
        )
        if failure is None or self._done:
            action()
        if failure is not None:
            self._failures.remove(failure)
            raise RetryError("503 SlowDown")


def run_in(store):
    training = SimpleNamespace(keep_last=1)
    return SimpleNamespace(
        store=store, config=SimpleNamespace(training=training), identity=lambda: {"processes": 1}
    )


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
def test_a_store_that_fails_once_takes_nothing_back_that_was_committed(tmp_path, change, key, done):
    store = Failing(str(tmp_path / "run"), tmp_path / "scratch", change, key, done)
    uploads = Uploads(
        lambda folder, step: commit(run_in(store), folder, step),
        lambda: None,
        Patience(pause_seconds=0),
    )
    for step in (2, 4, 6):
        uploads.put(checkpoint_of(step, tmp_path / f"checkpoint-{step}"), step)
    uploads.finish()
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
        ({"fingerprint": "g"}, "(fingerprint: f there, g here): give this one another name (run), or start beside it "
         "with --fresh"),
        ({"processes": 2}, "(processes: 1 there, 2 here): give this one another name (run), or run it in 1 processes"),
        ({"base": "c"}, "(base: b there, c here): give this one another name (run)"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused_with_what_helps(tmp_path, change, remedy):
    store, identity = (
        LocalStore(str(tmp_path / "run")),
        {"fingerprint": "f", "base": "b", "processes": 1},
    )
    publish_checkpoint(checkpoint_of(2, tmp_path / "checkpoint"), store, 2, identity)
    with pytest.raises(OutputError) as caught:
        fetch_newest(store, tmp_path / "target", identity | change)
    assert remedy in str(caught.value)
    assert ("--fresh" in str(caught.value)) == ("fingerprint" in change), "only what it helps with"


def test_a_checkpoint_that_is_damaged_in_storage_is_mended_by_the_same_one(tmp_path):
    store, folder = LocalStore(str(tmp_path / "run")), checkpoint_of(2, tmp_path / "checkpoint")
    publish_checkpoint(folder, store, 2, {"processes": 1})
    store.write("checkpoints/step-00000002/optimizer", b"optimizer of step 9")
    publish_checkpoint(folder, store, 2, {"processes": 1})
    assert fetch_newest(store, tmp_path / "target", {"processes": 1}) is not None


def test_a_checkpoint_of_another_run_is_refused_with_what_differs_and_nothing_of_it_is_fetched(
    tmp_path,
):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "optimizer.pt").write_bytes(b"a pickle")
    store = LocalStore(str(tmp_path / "run"))
    publish_checkpoint(tmp_path / "checkpoint", store, 2, {"fingerprint": "a", "processes": 2})
    with pytest.raises(OutputError, match=r"processes: 2 there, 1 here.*another name"):
        fetch_newest(store, tmp_path / "target", {"fingerprint": "a", "processes": 1})
    assert not (tmp_path / "target").exists()
