"""Attempts of one Spark task take turns at what is paid: a copy that Spark starts beside a slow one (speculation), or
instead of one whose executor it believes to be lost, waits until the other has ended or gives no sign of life."""

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
EXPIRY_S = 15.0  # who gave no sign for so long is dead


class Lease:
    """Waits for its turn at `folder`; from then on a file there says that it is taken, in other words every BEAT_S."""

    def __init__(self, folder: str, *, expiry_s: float = EXPIRY_S, waiting: Callable[[], None] | None = None) -> None:
        self._fs, self._folder = filesystem_of(folder)
        self._fs.create_dir(self._folder, recursive=True)
        self._path = f"{self._folder}/{uuid.uuid4().hex}.alive"
        self._expiry_s, self._dead = expiry_s, dict[str, bytes]()
        if waiting is not None and self._others():
            waiting()
        self._take()
        self._ended = threading.Event()
        # A reference that keeps nothing alive: who forgets a turn without ending it has ended it.
        self._thread = threading.Thread(target=_keep_alive, args=(weakref.ref(self), self._ended), daemon=True)
        self._thread.start()

    def _take(self) -> None:
        while True:
            self._wait_for_others()
            self._beat(0)
            if not self._others():
                return
            self._fs.delete_file(self._path)  # of two that begin in one moment nobody knows who was first
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
        """Those who say that they live: path -> what they say."""
        found = {}
        for entry in self._fs.get_file_info(fs.FileSelector(self._folder)):
            if entry.path.endswith(".alive") and entry.path != self._path:
                try:
                    with self._fs.open_input_stream(entry.path) as stream:
                        found[entry.path] = stream.readall()
                except FileNotFoundError:  # it ended just now
                    continue
        return {path: said for path, said in found.items() if self._dead.get(path) != said}

    def _beat(self, count: int) -> None:
        with self._fs.open_output_stream(self._path) as out:
            out.write(str(count).encode())

    def release(self) -> None:
        """The next one may begin."""
        self._ended.set()
        self._thread.join()  # a beat that is under way would bring the file back
        self._fs.delete_file(self._path)


def _keep_alive(lease: "weakref.ref[Lease]", ended: threading.Event) -> None:
    count = 0
    while not ended.wait(HEARTBEAT_S):
        count += 1
        if (held := lease()) is None:
            return
        with suppress(OSError):  # the store may be away for a moment
            held._beat(count)
        del held
