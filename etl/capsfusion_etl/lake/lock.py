"""The write lock of a lake: one command at a time."""

import atexit
from typing import Any

from capsfusion_etl.console import say
from capsfusion_etl.storage import is_remote

_held: dict[str, Any] = {}  # folder of a lake -> its lock or lease, held until this process ends


def one_writer(lake: str) -> None:
    """Acquire the write lock of a lake for the rest of this process; wait while another process holds it.

    A lake in a local folder has a file lock, which the operating system releases when the process ends. Other lakes
    have a lease, which works across machines but can be lost (see `lake.lease`). Only commands of this project are
    excluded: against other writers Delta's conflict detection applies (docs/running.md). Calls for a lake whose lock
    this process holds return at once.
    """
    from filelock import FileLock, Timeout

    from capsfusion_etl.lake.lease import Lease
    from capsfusion_etl.lake.location import folder_of, is_catalog

    def waiting() -> None:
        say("capsfusion: another run works on this lake: waiting for it to end")

    folder = str(folder_of(lake))
    if folder in _held:
        return
    if is_remote(folder) or is_catalog(lake):  # the folder of a catalog lake may be a mount without file locks
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
