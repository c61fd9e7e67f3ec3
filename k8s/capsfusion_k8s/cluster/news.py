"""Ask the API server for what no watch tells, when a run needs it: events, a queue's reasons, who spoke last."""

import asyncio
import logging
import math
from datetime import datetime

from capsfusion_k8s.backends import backend_of
from capsfusion_k8s.cluster.api import NO_ANSWER, Api, words
from capsfusion_k8s.cluster.observe import News
from capsfusion_k8s.cluster.queue import why_queued
from capsfusion_k8s.cluster.reports import Reports, about
from capsfusion_k8s.cluster.store import Key, Store
from capsfusion_k8s.objects.meta import age_s
from capsfusion_k8s.planning.actions import Trouble
from capsfusion_k8s.planning.restarts import stalls_at
from capsfusion_k8s.run import Run

log = logging.getLogger("capsfusion.operator")
EVENTS_AFTER_S = 3.0  # read the events of a job that has had no pods for this long
QUEUE_AFTER_S = 10.0  # ask about a job that its queue has not started for this long
QUEUE_EVERY_S = 60.0  # between two questions about the same job


class Newsroom:
    """Gathers `News` of runs."""

    def __init__(self, api: Api, store: Store, reports: Reports) -> None:
        self._api, self._store, self._reports = api, store, reports
        self._backends: frozenset[str] = frozenset()
        self._asked: dict[Key, tuple[float, Trouble | None]] = {}  # when, and what the queue said

    async def look_for_backends(self) -> None:
        """Find out which kinds of training job the cluster has."""
        self._backends = await asyncio.to_thread(self._api.backends)

    def forget(self, key: Key) -> None:
        """Forget a run."""
        self._asked.pop(key, None)

    async def of(self, run: Run, key: Key, now: datetime) -> News:
        """Return the news of a run; most of the time, nothing is asked."""
        stalls = stalls_at(run)
        heard = await self._reports.last_heard(run) if stalls is not None and now >= stalls else None
        try:
            warnings, queue = await self._warnings(run, key, now), await self._queue(run, key, now)
        except NO_ANSWER as error:  # the run goes on without
            log.warning("cannot ask why %s waits: %s", run.name, words(error)[1], extra=about(run))
            warnings, queue = [], None
        return News(warnings, queue, heard, self._backends)

    async def _warnings(self, run: Run, key: Key, now: datetime) -> list[str]:
        waiting, backend = (self._store.job(run) if run.attempt else self._store.resolver(key)), backend_of(run)
        role = "trainer" if run.attempt else "resolver"
        begins = run.phase in ("Resolving", "Gating", "Queued")
        if not begins or waiting is None or self._store.pods(key, role) or age_s(waiting, now) <= EVENTS_AFTER_S:
            return []
        makers = [f"involvedObject.uid={waiting['metadata']['uid']}"]
        if run.attempt and backend.pods_of is not None:
            name = f"{waiting['metadata']['name']}{backend.pods_of}"
            makers.append(f"involvedObject.kind=Job,involvedObject.name={name}")
        return [m for maker in makers for m in await asyncio.to_thread(self._api.events, run.namespace, maker)]

    async def _queue(self, run: Run, key: Key, now: datetime) -> Trouble | None:
        job, backend = self._store.job(run), backend_of(run)
        if job is None or "queueName" not in run.spec or run.suspended or not backend.is_suspended(job):
            self._asked.pop(key, None)
            return None
        waits = run.phase == "Queued"  # else it was preempted just now
        asked, said = self._asked.get(key, (-math.inf, None))
        time = asyncio.get_running_loop().time()
        if waits and (age_s(job, now) < QUEUE_AFTER_S or time - asked < QUEUE_EVERY_S):
            return said
        found = why_queued(backend, job, await asyncio.to_thread(self._api.workloads, job), now)
        self._asked[key] = (time, found)
        return found
