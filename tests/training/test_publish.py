"""Claims about what keeps an adapter from its places: a lost lease, an error beside it."""

from types import SimpleNamespace

import pytest

from job.errors import ForbiddenError, OutputError, RetryError
from job.storage.holder import this_process
from job.storage.lease import GuardedStore, Lease, LeaseLostError
from job.storage.open import open_store
from job.training.deliver import push
from job.training.publish import or_without


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


@pytest.mark.parametrize("error", [ValueError("no chart"), OutputError("the disk is full")])
def test_what_fails_beside_the_adapter_is_noted_with_its_reason(error):
    attempt = SimpleNamespace(left_out={})
    with or_without("report", attempt):
        raise error
    assert attempt.left_out == {"report": f"{type(error).__name__}: {error}"}


@pytest.mark.parametrize("error", [RetryError("no connection"), ForbiddenError("403")])
def test_what_would_keep_the_adapter_itself_away_ends_the_run(error):
    attempt = SimpleNamespace(left_out={})
    with pytest.raises(type(error)), or_without("report", attempt):
        raise error
    assert attempt.left_out == {}
