"""A lease on a folder of a store: of several runs with one name, one writes.

Purpose: the holder of generation N is whoever created `lease/N.json` by a guarded write, the one conditional operation
that compatible services honour; it renews by writing that key again. A key that does not change for its lifetime is
dead, and generation N + 1 may be created. Nobody's clock is compared with anybody else's. A holder that could not renew
in time, or finds a newer generation, has lost the lease: `check` raises before it can overwrite anything.
Knows nothing of what the folder holds.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job.errors import AlreadyExistsError, ExitCode, MissingError, RecapError, RetryError
from job.storage.holder import Holder, holder_of
from job.storage.store import Progress, Store
from job.telemetry import event, warn

FOLDER = "lease"


class LeaseLostError(RecapError):
    """Another run writes here now, or this one could not say for too long that it still does: nothing to try again."""

    exit_code = ExitCode.RETRY


class LeaseHeldError(RetryError):
    """Another living run holds the lease."""


@dataclass(frozen=True)
class Terms:
    """How long a lease lives without a renewal, and how often it is renewed, in seconds."""

    lifetime: float = 60
    renewal: float = 15

    @property
    def trusted(self) -> float:
        """For how long after a renewal the holder writes: it stops well before somebody else may begin."""
        return self.lifetime * 2 / 3


class Lease:
    """The right to write below a store, taken with `acquire` and kept by a thread until `release`."""

    def __init__(self, store: Store, holder: Holder, terms: Terms | None = None) -> None:
        self._store, self._holder, self._terms = store, holder, terms or Terms()
        self._generation = 0
        self._renewals = 0
        self._renewed_at = 0.0
        self._newer = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the lease; waits as long as a dead holder's may live. LeaseHeldError if another run holds it."""
        newest = self._newest()
        if newest is not None:
            self._wait_until_free(newest)
        self._generation = (newest or 0) + 1
        self._renewed_at = _now()  # others may count from when the key appears, whenever the answer comes
        try:
            self._store.write(_key(self._generation), self._content(), if_absent=True)
        except AlreadyExistsError:
            self._refuse_unless_mine()
        self._probe()
        for generation in self._generations():
            if generation < self._generation:
                self._store.delete(_key(generation))
        self._thread.start()

    def check(self) -> None:
        """LeaseLostError unless this run surely still is the only writer."""
        if self._newer:
            raise LeaseLostError(f"{self._store.uri}: another run took over ({self._newer}): this one writes no more")
        if self._ended.is_set():  # whoever still writes was not waited for
            raise LeaseLostError(f"{self._store.uri}: the lease was given back: this run writes no more")
        silent = _now() - self._renewed_at
        if silent > self._terms.trusted:
            raise LeaseLostError(
                f"{self._store.uri}: the lease could not be renewed for {silent:.0f} s, so another run may have taken "
                "over: this one writes no more; run the same command again to go on"
            )

    def release(self) -> None:
        """Give the lease back, so that the next run need not wait."""
        self.let_lapse()
        if self._newer:
            return
        try:
            self._store.write(_key(self._generation), self._content(released=True))
        except RecapError as error:
            warn("the lease could not be given back: it ends by itself", seconds=self._terms.lifetime, why=str(error))

    def let_lapse(self) -> None:
        """Renew it no more: the next run waits until it has ended by itself."""
        self._ended.set()
        if self._thread.ident:
            self._thread.join(timeout=self._terms.renewal)

    def _keep(self) -> None:
        while not self._ended.wait(self._terms.renewal):
            began = _now()
            try:
                self._renewals += 1
                self._store.write(_key(self._generation), self._content())
                newest = self._newest() or 0
                if newest > self._generation:
                    self._newer = holder_of(self._read(newest)).name
                    warn("the lease is lost: another run took over", holder=self._newer)
                    return
                self._renewed_at = began
            except RecapError as error:
                warn("the lease was not renewed", seconds=round(_now() - self._renewed_at), why=str(error))

    def _wait_until_free(self, generation: int) -> None:
        """Until the holder released it, is dead, or did not renew for a lifetime."""
        seen, first, told = self._version(generation), _now(), False
        while True:
            content = self._read(generation)
            holder = holder_of(content)
            if content.get("released") or holder.is_dead(self._holder):
                return
            same_machine = holder.machine == self._holder.machine
            if same_machine or self._version(generation) != seen:
                raise LeaseHeldError(
                    f"{self._store.uri} is being written by another run ({holder.name}): wait for its end, stop "
                    "it, or give this one another name (run)"
                )
            if _now() - first > self._terms.lifetime:
                return
            if not told:
                event("waiting: the last run may still be alive", holder=holder.name, seconds=self._terms.lifetime)
                told = True
            time.sleep(self._terms.renewal / 5)

    def _probe(self) -> None:
        """Whether the store keeps a guarded write from overwriting; some accept the condition and ignore it."""
        is_kept = keeps_guard(self._store, _key(self._generation), self._content())
        self._refuse_if_succeeded()  # whoever did has removed this key, so that a write of it tells nothing
        if is_kept:
            return
        warn("this store ignores conditional writes: two runs of one name would not be kept apart", uri=self._store.uri)
        time.sleep(min(1.0, self._terms.renewal))
        self._refuse_unless_mine()

    def _refuse_unless_mine(self) -> None:
        # A guarded write that is asked again after a lost answer finds its own content.
        holder = holder_of(self._read(self._generation))
        if holder.id != self._holder.id:
            raise LeaseHeldError(
                f"{self._store.uri}: another run began at the same moment ({holder.name}); run again when it has ended"
            )

    def _refuse_if_succeeded(self) -> None:
        newest = self._newest() or 0
        if newest > self._generation:
            raise LeaseHeldError(
                f"{self._store.uri}: the answer to taking the lease took so long that another run began meanwhile "
                f"({holder_of(self._read(newest)).name}); run again when it has ended"
            )

    def _content(self, released: bool = False) -> bytes:
        content = {"holder": asdict(self._holder), "renewals": self._renewals, "released": released}
        return json.dumps(content).encode()

    def _read(self, generation: int) -> dict[str, Any]:
        """What the key says; nothing where it cannot be understood: somebody wrote it, and may renew it."""
        try:
            found = json.loads(self._store.read(_key(generation)))
        except MissingError:
            return {"released": True}
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _version(self, generation: int) -> str:
        try:
            return self._store.stat(_key(generation)).version
        except MissingError:
            return ""

    def _generations(self) -> list[int]:
        names = (entry.key.rpartition("/")[2].removesuffix(".json") for entry in self._store.list(FOLDER))
        return sorted(int(name) for name in names if name.isdigit())

    def _newest(self) -> int | None:
        return max(self._generations(), default=None)


def keeps_guard(store: Store, key: str, data: bytes) -> bool:
    """Whether the store keeps a guarded write from overwriting what is at this key, as this does where it does not."""
    try:
        store.write(key, data, if_absent=True)
    except AlreadyExistsError:
        return True
    return False


class GuardedStore:
    """A store whose every change asks the lease first. Reading needs no lease."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self._store, self._lease, self.uri = store, lease, store.uri
        self._changes: set[object] = set()  # that are under way
        self.stat, self.list, self.read = store.stat, store.list, store.read
        self.open, self.download = store.open, store.download

    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        """As the store does."""
        with self.change():
            self._store.upload(source, key, progress)

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """As the store does."""
        with self.change():
            self._store.write(key, data, if_absent=if_absent)

    def delete(self, key: str) -> None:
        """As the store does."""
        with self.change():
            self._store.delete(key)

    def check_changes(self) -> None:
        """LeaseLostError if a change is under way that has outlived the lease: only the process's end stops it.

        A client tries again on its own, for minutes, and does not ask the lease before.
        """
        if self._changes:
            self._lease.check()

    def end(self) -> None:
        """Give the lease back; or let it lapse where a change that nobody waits for is under way and may still come."""
        if self._changes:
            self._lease.let_lapse()
        else:
            self._lease.release()

    @contextmanager
    def change(self) -> Iterator[None]:
        """What is done within the block needs the lease; also where it is not done to this store."""
        self._lease.check()
        mine = object()
        self._changes.add(mine)
        try:
            yield
        finally:
            self._changes.discard(mine)


def _key(generation: int) -> str:
    return f"{FOLDER}/{generation:08d}.json"


def _now() -> float:
    """Seconds that pass also while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
