"""The journal tells why an attempt ended, and no secret with it."""

from job.config.commands import TrainConfig
from job.storage.local import LocalStore
from job.training import journal

CONFIG = TrainConfig.model_validate({"run": "r", "model": {"base": "b"}, "data": {"train": "t"}, "output": "o"})


def test_the_reason_of_an_end_holds_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "very-secret-token")
    store = LocalStore(str(tmp_path))
    entry = journal.begin(store, CONFIG, {}, 0, {})
    journal.end(store, entry, "failed", 3, "ValueError: refused very-secret-token")
    found = journal.read_journal(store)
    assert found is not None
    assert found.attempts[-1].reason == "ValueError: refused ***"
