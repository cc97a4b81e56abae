"""Claims about which checkpoints there are, at every moment."""

import uuid
from types import SimpleNamespace

import pytest

from job.errors import MissingError, OutputError
from job.storage.folders import fetch_folder
from job.storage.local import LocalStore
from job.training.checkpoints import fetch_newest, list_steps, publish_checkpoint
from job.training.fit import commit


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
        except MissingError:  # of the manifest; a file that is not what a manifest says is damage, and fails the test
            return False
        return True


def test_there_is_never_less_than_what_was_committed_and_never_a_part(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    store = Watched(str(tmp_path / "run"), tmp_path / "scratch")
    training = SimpleNamespace(keep_last=1)
    run = SimpleNamespace(store=store, config=SimpleNamespace(training=training), identity=lambda: {"processes": 1})
    for step in (2, 4, 6):
        for name in ("adapter", "optimizer"):
            (folder / name).write_text(f"{name} of step {step}")
        commit(run, folder, step)
    assert set(store.newest) == {0, 2, 4, 6}
    assert store.newest == sorted(store.newest)
    assert list_steps(store) == [6]


def test_a_checkpoint_of_another_run_is_refused_with_what_differs_and_nothing_of_it_is_fetched(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "optimizer.pt").write_bytes(b"a pickle")
    store = LocalStore(str(tmp_path / "run"))
    publish_checkpoint(tmp_path / "checkpoint", store, 2, {"fingerprint": "a", "processes": 2})
    with pytest.raises(OutputError, match=r"processes: 2 there, 1 here.*--fresh"):
        fetch_newest(store, tmp_path / "target", {"fingerprint": "a", "processes": 1})
    assert not (tmp_path / "target").exists()
