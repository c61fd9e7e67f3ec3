"""A lease: mutual exclusion with a timeout, through files in a folder that all contenders can reach.

Contenders are commands that write to the same lake (`lake.lock`), and attempts of one Spark task that pays for requests
(`budget.metered`): Spark starts a second attempt beside a slow one (speculation), or in place of one whose executor it
believes lost.

Protocol: each contender has a file of its own, `UUID.alive`. To acquire the lease, it waits until no other file shows a
heartbeat, writes its file, and lists the folder again. If it then sees another live file, it deletes its own and
retries after a random delay: of two contenders that start together both may withdraw, but never do both proceed. The
holder rewrites its file every HEARTBEAT_S. A contender considers the other files abandoned once neither their set nor
their contents have changed for EXPIRY_S by its own monotonic clock. No timestamps are compared, so the clocks need the
same rate but not the same time.

Guarantees: at most one contender holds the lease, provided that (a) the store is consistent, so that a completed write
is visible to every later listing and read, as on a local disk, S3 or GCS, and (b) each heartbeat, counted from the
creation of the file, becomes visible to the waiting contenders less than EXPIRY_S after the one before. A waiting
contender notices a release within about EXPIRY_S / 20, and a crashed holder after about EXPIRY_S. The file of a crashed
holder is never deleted, so every later contender waits EXPIRY_S for it, too.

Not guaranteed: a lease is not a mutex. A holder that stalls for EXPIRY_S (a suspended machine, a blocked process, an
unreachable store) loses the lease without knowing: nothing interrupts or notifies it, failed heartbeats are not
reported, and when it continues, it works beside the new holder until one of them ends. There is no fencing token, so
the store does not reject the writes of a former holder. During such an overlap, two attempts of one task may pay for
the same requests and exceed their allowance, although Spark commits the rows of one attempt only. Two commands may
append results for the same rows, and on S3, where Delta's default LogStore is safe for one driver only, overwrite each
other's commits; docs/running.md names a commit service that prevents the latter. A heartbeat shows that the process
lives and reaches the store, not that its work advances: a holder that hangs keeps the lease. Waiting has no timeout,
contenders are not served in order, and processes that do not use the lease are not excluded.
"""

import random
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress

from pyarrow import fs

from capsfusion_etl.storage import filesystem_of

HEARTBEAT_S = 4.0
EXPIRY_S = 15.0  # without a heartbeat for so long a contender is considered dead; two missed heartbeats do no harm


class Lease:
    """The lease on `folder`: the constructor blocks until it is acquired, and a daemon thread then sends heartbeats.

    The lease ends with `release`. If the object is garbage-collected or its process is killed, the heartbeats stop, and
    others can acquire it after EXPIRY_S.

    Args:
        folder: a folder or URL; created if missing.
        expiry_s: seconds without a heartbeat after which this contender considers another one dead.
        waiting: called once before the constructor waits, if another contender is there.
    """

    def __init__(self, folder: str, *, expiry_s: float = EXPIRY_S, waiting: Callable[[], None] | None = None) -> None:
        self._fs, self._folder = filesystem_of(folder)
        self._fs.create_dir(self._folder, recursive=True)
        self._path = f"{self._folder}/{uuid.uuid4().hex}.alive"
        self._expiry_s, self._dead = expiry_s, dict[str, bytes]()
        if waiting is not None and self._others():
            waiting()
        self._take()
        self._ended = threading.Event()
        # Weak reference: a lease that is garbage-collected stops its heartbeat.
        self._thread = threading.Thread(target=_keep_alive, args=(weakref.ref(self), self._ended), daemon=True)
        self._thread.start()

    def _take(self) -> None:
        while True:
            self._wait_for_others()
            self._beat(0)
            if not self._others():
                return
            self._fs.delete_file(self._path)  # another contender started at the same time: withdraw and retry
            time.sleep(random.uniform(0, self._expiry_s / 10))

    def _wait_for_others(self) -> None:
        last, since = self._others(), time.monotonic()
        while last:
            if time.monotonic() - since > self._expiry_s:
                self._dead |= last
                return
            time.sleep(self._expiry_s / 20)
            if (now := self._others()) != last:
                last, since = now, time.monotonic()

    def _others(self) -> dict[str, bytes]:
        """Return the files of the other contenders that are not known to be dead: path -> content."""
        found = {}
        for entry in self._fs.get_file_info(fs.FileSelector(self._folder)):
            if entry.path.endswith(".alive") and entry.path != self._path:
                try:
                    with self._fs.open_input_stream(entry.path) as stream:
                        found[entry.path] = stream.readall()
                except FileNotFoundError:  # released since the listing
                    continue
        return {path: said for path, said in found.items() if self._dead.get(path) != said}

    def _beat(self, count: int) -> None:
        with self._fs.open_output_stream(self._path) as out:
            out.write(str(count).encode())

    def release(self) -> None:
        """Stop the heartbeat and delete the file, so that another contender can acquire the lease."""
        self._ended.set()
        self._thread.join()  # a heartbeat in progress would create the file again
        self._fs.delete_file(self._path)


def _keep_alive(lease: "weakref.ref[Lease]", ended: threading.Event) -> None:
    count = 0
    while not ended.wait(HEARTBEAT_S):
        count += 1
        if (held := lease()) is None:
            return
        with suppress(OSError):  # the store may be unreachable for a moment; the next heartbeat tries again
            held._beat(count)
        del held
