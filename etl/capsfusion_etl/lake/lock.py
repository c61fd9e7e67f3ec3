"""One process at a time writes to a lake."""

import atexit
from typing import Any

from capsfusion_etl.console import say
from capsfusion_etl.storage import is_remote

_held: dict[str, Any] = {}  # lake -> its lock, for as long as this process lives


def one_writer(lake: str) -> None:
    """Wait until no other process writes to this lake; the lock ends with this process, however it ends.

    In a folder a lock of the file system; elsewhere, from whatever machine, a file that says now and then that its
    writer lives. Writers that are not of this project are Delta's matter (docs/running.md).
    """
    from filelock import FileLock, Timeout

    from capsfusion_etl.lake.lease import Lease
    from capsfusion_etl.lake.location import folder_of, is_catalog

    def waiting() -> None:
        say("capsfusion: another run works on this lake: waiting for it to end")

    folder = str(folder_of(lake))
    if folder in _held:
        return
    if is_remote(folder) or is_catalog(lake):  # a catalog's may be mounted: no locks there
        _held[folder] = lease = Lease(f"{folder}/turns", waiting=waiting)
        atexit.register(lease.release)
        return
    lock = FileLock(f"{folder}/run.lock", is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    _held[folder] = lock
