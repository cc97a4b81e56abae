"""Claims about which checkpoints there are, at every moment."""

import uuid
from types import SimpleNamespace

from job.errors import MissingError
from job.storage.folders import fetch_folder
from job.storage.local import LocalStore
from job.training.checkpoints import list_steps
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
