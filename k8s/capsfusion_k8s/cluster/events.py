"""Build the events of runs, and send them in order beside everything else."""

import asyncio
import contextlib
import hashlib
import logging
from datetime import datetime
from typing import Any

from capsfusion_k8s.cluster.api import MANAGER, Api
from capsfusion_k8s.run import GROUP, KIND, VERSION, Object, Run, written

log = logging.getLogger("capsfusion.operator")
SAY_AFTER_S, LAST_WORDS_S = 0.05, 5.0  # delay before events are sent; time to send the rest at shutdown


def event(run: Run, reason: str, message: str, now: datetime, *, seen: str, warning: bool) -> Object:
    """Return the event that `kubectl describe` shows.

    Its name is a hash of the uid, `seen`, the reason and the message, so that a repeated action creates one event only.
    """
    digest = hashlib.sha256(f"{run.uid}/{seen}/{reason}/{message}".encode()).hexdigest()[:16]
    reference: dict[str, Any] = {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": run.name, "namespace": run.namespace, "uid": run.uid,
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": f"{run.name}.{digest}", "namespace": run.namespace},
        "involvedObject": reference, "reason": reason, "message": message,
        "type": "Warning" if warning else "Normal", "count": 1,
        "firstTimestamp": written(now), "lastTimestamp": written(now), "source": {"component": MANAGER},
    }  # fmt: skip


class Events:
    """A queue of events to send."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._queue: asyncio.Queue[Object] = asyncio.Queue()

    def put(self, found: Object) -> None:
        """Send an event later."""
        self._queue.put_nowait(found)

    async def send(self) -> None:
        """Send queued events in order, forever. A failure is logged and not retried."""
        while True:
            found = await self._queue.get()
            if self._queue.empty():
                await asyncio.sleep(SAY_AFTER_S)  # let the run's next requests go first
            try:
                await asyncio.to_thread(self._api.say, found)
            except Exception as error:  # noqa: BLE001  the status has the same reason and message
                log.warning("cannot send an event: %s", error)
            finally:
                self._queue.task_done()

    async def drain(self) -> None:
        """Wait until all are sent, up to LAST_WORDS_S."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), LAST_WORDS_S)
