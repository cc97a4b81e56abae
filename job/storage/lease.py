"""A lease on a folder of a store: of several runs with one name, only one writes.

The holder of generation N is whoever created `lease/N.json` by a guarded write, the one conditional
operation that compatible services honour. It renews the lease by writing that key again. A key that
has not changed for a lease's lifetime is dead, and generation N + 1 may be created. Clocks of
different machines are never compared.

A holder that could not renew in time, or finds a newer generation, has lost the lease: `check`
raises before it can overwrite anything.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
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
    """The run is no longer certain to be the only writer.

    Another run took over, or this one has not renewed its lease for too long. No retry within the
    process can help.
    """

    exit_code = ExitCode.RETRY


class LeaseHeldError(RetryError):
    """Another living run holds the lease."""


@dataclass(frozen=True)
class Terms:
    """The time that a lease lives without a renewal, and the interval of renewals, in seconds."""

    lifetime: float = 60
    renewal: float = 15

    @property
    def trusted(self) -> float:
        """Return the seconds after a renewal for which the holder may write.

        It is shorter than the lifetime: the holder stops well before another run may begin.
        """
        return self.lifetime * 2 / 3


def seconds_since_boot() -> float:
    """Return the seconds of a clock that also runs while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Lease:
    """The right to write below a store. `acquire` it; a thread renews it until `release`."""

    def __init__(
        self,
        store: Store,
        holder: Holder,
        terms: Terms | None = None,
        clock: Callable[[], float] = seconds_since_boot,
    ) -> None:
        self._store = store
        self._holder = holder
        self._terms = terms or Terms()
        self._generation = 0
        self._renewals = 0
        self._clock = clock
        self._renewed_at = 0.0  # by the clock
        self._newer = ""  # the name of the holder that took over
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the lease and start the thread that renews it.

        Blocks while the lease of a dead holder may still be alive, at most for its lifetime. Raise
        LeaseHeldError if another run holds it.
        """
        newest = self._newest_generation()
        if newest is not None:
            self._wait_until_free(newest)
        # A new key, never the dead holder's own: if that one lives after all and renews, it writes
        # its old key, and then sees the newer one.
        self._generation = (newest or 0) + 1

        # Counted from before the write: others may count from the moment the key appears, and the
        # answer can arrive long after that.
        self._renewed_at = self._clock()
        try:
            self._store.write(_key(self._generation), self._content(), if_absent=True)
        except AlreadyExistsError:
            self._refuse_unless_mine()
        self._check_guard()

        # Only the holder tidies up, and until here this run was not certain to be it.
        for generation in self._generations():
            if generation < self._generation:
                self._store.delete(_key(generation))
        self._thread.start()

    def check(self) -> None:
        """Raise LeaseLostError unless this run is certain to be the only writer."""
        # Asks this process only, no store: it runs before every write.
        if self._newer:
            raise LeaseLostError(
                f"{self._store.uri}: another run took over ({self._newer}): this run stops",
            )
        if self._ended.is_set():  # a thread that nobody waited for still writes
            raise LeaseLostError(
                f"{self._store.uri}: the lease was released: this run writes no more",
            )
        silent = self._clock() - self._renewed_at
        if silent > self._terms.trusted:
            raise LeaseLostError(
                f"{self._store.uri}: the lease could not be renewed for {silent:.0f} s, so another "
                "run may have taken over: this one writes no more; run the same command again to "
                "resume"
            )

    def release(self) -> None:
        """Release the lease, so that the next run need not wait. Log a warning if that fails."""
        # The thread ends first: a renewal after the last write would take the release back.
        self.let_lapse()
        # The newer run deletes this key, and writing it again would leave it behind.
        if self._newer:
            return
        try:
            self._store.write(_key(self._generation), self._content(released=True))
        except RecapError as error:
            warn(
                "the lease was not released: it ends by itself",
                seconds=self._terms.lifetime,
                why=str(error),
            )

    def let_lapse(self) -> None:
        """Stop renewing the lease. The next run waits until its lifetime has passed."""
        self._ended.set()
        # A thread that was never started cannot be joined. One that hangs in a request is left.
        if self._thread.ident:
            self._thread.join(timeout=self._terms.renewal)

    def _renew(self) -> None:
        """Renew the lease until it ends or is lost. The body of the thread."""
        while not self._ended.wait(self._terms.renewal):
            # As in `acquire`: the lease lives from before the write, however long that takes.
            began = self._clock()
            try:
                self._renewals += 1
                # Not guarded: the key is this run's own. If a newer run deleted it, it comes back,
                # which does no harm, since only the newest generation counts.
                self._store.write(_key(self._generation), self._content())

                # The listing follows the write, to see a run that took over before it.
                newest = self._newest_generation() or 0
                if newest > self._generation:
                    self._newer = holder_of(self._read(newest)).name
                    warn("the lease is lost: another run took over", holder=self._newer)
                    return
                self._renewed_at = began
            except RecapError as error:
                # No reason to stop: the next renewal may succeed, and `check` counts the time.
                seconds = round(self._clock() - self._renewed_at)
                warn("the lease was not renewed", seconds=seconds, why=str(error))

    def _wait_until_free(self, generation: int) -> None:
        """Block until the holder released the lease, is dead, or did not renew for a lifetime.

        Raise LeaseHeldError as soon as the holder is known to be alive.
        """
        first_version = self._version(generation)
        began = self._clock()
        is_logged = False
        while True:
            content = self._read(generation)
            holder = holder_of(content)
            # Either way, the holder writes no more: no lifetime need pass.
            if content.get("released") or holder.is_dead(self._holder):
                return

            # On one machine `is_dead` is certain. From another, only a renewal proves life.
            same_machine = holder.machine == self._holder.machine
            if same_machine or self._version(generation) != first_version:
                raise LeaseHeldError(
                    f"{self._store.uri} is being written by another run ({holder.name}): wait for "
                    "its end, stop it, or give this one another name (run)"
                )
            # A lifetime without a change, by this machine's own clock: the time of the last
            # renewal, by the clock of another, is never asked for.
            if self._clock() - began > self._terms.lifetime:
                return

            if not is_logged:
                event(
                    "waiting: the last run may still be alive",
                    holder=holder.name,
                    seconds=self._terms.lifetime,
                )
                is_logged = True
            time.sleep(self._terms.renewal / 5)

    def _check_guard(self) -> None:
        """Log a warning if the store ignores the condition of a guarded write; some do.

        Raise LeaseHeldError if another run has taken the lease meanwhile.
        """
        is_kept = keeps_guard(self._store, _key(self._generation), self._content())

        # A newer run deletes this run's key, and then a guarded write of it proves nothing.
        self._refuse_if_succeeded()
        if is_kept:
            return

        warn(
            "this store ignores conditional writes: two runs of one name would not be kept apart",
            uri=self._store.uri,
        )
        # Let a run that began at the same moment write, too: the last write then has the lease.
        time.sleep(min(1.0, self._terms.renewal))
        self._refuse_unless_mine()

    def _refuse_unless_mine(self) -> None:
        """Raise LeaseHeldError unless the key of this generation names this run.

        A guarded write can fail on its own content: the client repeats it after a lost answer.
        """
        holder = holder_of(self._read(self._generation))
        if holder.id != self._holder.id:
            raise LeaseHeldError(
                f"{self._store.uri}: another run began at the same moment ({holder.name}); "
                "run this one again when the other has ended"
            )

    def _refuse_if_succeeded(self) -> None:
        """Raise LeaseHeldError if there is a newer generation."""
        newest = self._newest_generation() or 0
        if newest > self._generation:
            holder = holder_of(self._read(newest)).name
            raise LeaseHeldError(
                f"{self._store.uri}: the answer to taking the lease took so long that another run "
                f"began meanwhile ({holder}); run again when it has ended"
            )

    def _content(self, released: bool = False) -> bytes:
        # The number of renewals makes each write a new version of the key.
        content = {
            "holder": asdict(self._holder),
            "renewals": self._renewals,
            "released": released,
        }
        return json.dumps(content).encode()

    def _read(self, generation: int) -> dict[str, Any]:
        """Return the content of a generation's key.

        Empty if it cannot be parsed: its writer may be alive and renew it. A key that is gone was
        released.
        """
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
        generations = []
        for entry in self._store.list(FOLDER):
            name = entry.key.rpartition("/")[2].removesuffix(".json")
            if name.isdigit():
                generations.append(int(name))
        return sorted(generations)

    def _newest_generation(self) -> int | None:
        return max(self._generations(), default=None)


def keeps_guard(store: Store, key: str, data: bytes) -> bool:
    """Write `data` to a key that is taken, guarded. Return True if the store refuses.

    A store that ignores the condition overwrites the key and returns False.
    """
    try:
        store.write(key, data, if_absent=True)
    except AlreadyExistsError:
        return True
    return False


class GuardedStore:
    """A store that checks the lease before every change. Reading needs no lease."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self.uri = store.uri
        self._store = store
        self._lease = lease
        self._changes: set[object] = set()  # one token for each change in progress

        self.stat = store.stat
        self.list = store.list
        self.read = store.read
        self.open = store.open
        self.download = store.download

    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        """Upload the file, as the store does. Raise LeaseLostError without the lease."""
        with self.change():
            self._store.upload(source, key, progress)

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write the bytes, as the store does. Raise LeaseLostError without the lease."""
        with self.change():
            self._store.write(key, data, if_absent=if_absent)

    def replace(self, key: str, data: bytes, expected: bytes | None) -> None:
        """Replace the object, as the store does. Raise LeaseLostError without the lease."""
        with self.change():
            self._store.replace(key, data, expected)

    def delete(self, key: str) -> None:
        """Delete the object, as the store does. Raise LeaseLostError without the lease."""
        with self.change():
            self._store.delete(key)

    def check_changes(self) -> None:
        """Raise LeaseLostError if a change in progress has outlived the lease.

        Only the end of the process stops such a change: clients retry on their own, for minutes,
        and do not check the lease before each try.
        """
        if self._changes:
            self._lease.check()

    def end(self) -> None:
        """Release the lease, or let it lapse if a change is still in progress.

        Nobody waits for such a change, and it may still reach the store.
        """
        if self._changes:
            self._lease.let_lapse()
        else:
            self._lease.release()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Check the lease, and count the block as a change in progress.

        For writes to other stores, too, that need this lease. Raise LeaseLostError without it.
        """
        self._lease.check()
        token = object()
        self._changes.add(token)
        try:
            yield
        finally:
            self._changes.discard(token)


def _key(generation: int) -> str:
    return f"{FOLDER}/{generation:08d}.json"
