"""Release the snapshots that deleted runs hold.

No finalizer: it would keep deleted runs while the operator is down. A hold that is left over then ends by itself, or is
released by hand (docs/operator.md).
"""

import asyncio
import logging
from datetime import UTC, datetime

from capsfusion_k8s.cluster.api import Api
from capsfusion_k8s.cluster.reports import about
from capsfusion_k8s.objects.short_jobs import keeper_job
from capsfusion_k8s.planning.retention import held, keeper_name
from capsfusion_k8s.run import Run

log = logging.getLogger("capsfusion.operator")
PAUSES_S = (1, 5, 30, 120, 600)  # between attempts


class Releases:
    """Releases in progress."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.tasks: set[asyncio.Task[None]] = set()

    def let_go(self, run: Run) -> None:
        """Release the snapshot of a deleted run, if it holds one."""
        if held(run):
            task = asyncio.create_task(self._release(run))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _release(self, run: Run) -> None:
        """Create the Job that releases the snapshot; try again after an error, such as a server that is busy."""
        job = keeper_job(run, keeper_name(run, False, datetime.now(UTC)), hold=False, owned=False)
        for pause in (*PAUSES_S, None):
            try:
                await asyncio.to_thread(self._api.make, job)
                return
            except Exception as error:  # noqa: BLE001  whatever it is, the hold must not be forgotten in silence
                log.warning("cannot release the snapshot of a deleted run: %s", error, extra=about(run))
            if pause is not None:
                await asyncio.sleep(pause)
        how = f"capsfusion pin --snapshot LAKE@NAME --release {run.holder}"
        log.error("the hold of a deleted run is left over; release it: %s", how, extra=about(run))
