"""Claims about pushing to the Hub, which knows nothing of a run's lease."""

from types import SimpleNamespace

import pytest

from job.storage.holder import this_process
from job.storage.lease import GuardedStore, Lease, LeaseLostError
from job.storage.open import open_store
from job.training.deliver import push


def test_a_run_that_lost_its_lease_pushes_nothing_to_the_hub(hub, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "prompt.json").write_text("{}", encoding="utf-8")
    store = open_store(str(tmp_path / "runs"))
    lease = Lease(store, this_process())
    lease.acquire()
    settings = SimpleNamespace(run="tiny", publish=SimpleNamespace(private=True))
    run = SimpleNamespace(config=settings, store=GuardedStore(store, lease))
    push(run, adapter, "org/mine")
    lease.release()
    with pytest.raises(LeaseLostError):
        push(run, adapter, "org/theirs")
    assert set(hub.repositories) == {"models/org/mine"}
