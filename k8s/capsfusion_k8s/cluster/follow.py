"""Reconcile every run: on each change and periodically, call `plan` and carry out its actions.

Each run has one task, so that it is never reconciled twice at once. The store belongs to the event loop; requests run
in threads.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kubernetes.client import ApiException

from capsfusion_k8s.backends import backend_of
from capsfusion_k8s.cluster import metrics
from capsfusion_k8s.cluster.api import NO_ANSWER, Api, words
from capsfusion_k8s.cluster.carry_out import Found, carry_out
from capsfusion_k8s.cluster.events import Events
from capsfusion_k8s.cluster.kinds import PODS, RUNS, SHORT_JOBS, TRAINING
from capsfusion_k8s.cluster.news import Newsroom
from capsfusion_k8s.cluster.observe import children_of
from capsfusion_k8s.cluster.release import Releases
from capsfusion_k8s.cluster.reports import Reports, about
from capsfusion_k8s.cluster.store import Key, Store
from capsfusion_k8s.planning.actions import Action, Children, LookAgain, SetStatus
from capsfusion_k8s.planning.plan import plan
from capsfusion_k8s.planning.restarts import stalls_at
from capsfusion_k8s.run import TERMINAL, Object, Run

log = logging.getLogger("capsfusion.operator")
TICK_S = 15.0  # between reconciliations of a run without changes, for progress and time limits
RESYNC_S = 600.0  # between full lists of all objects: a watch can miss a deletion
ROUNDS = 12  # of `plan` in one reconciliation: more than a run has phases
BACKOFF_S = (1, 2, 5, 10, 30)  # after consecutive errors


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between periodic reconciliations (`tick`) and between full lists (`resync`)."""

    tick: float = TICK_S
    resync: float = RESYNC_S


class Followers:
    """Reconcilers of the runs in some namespaces, or in all (None)."""

    def __init__(self, api: Api, namespaces: Sequence[str] | None, pace: Pace) -> None:
        self.store = Store()
        self.events = Events(api)
        self._api, self._pace = api, pace
        self._namespaces: Sequence[str | None] = [None] if namespaces is None else list(namespaces)
        self._pokes: dict[Key, asyncio.Event] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._releases = Releases(api)
        self._reports = Reports(api, self.store, pace.tick)
        self._news = Newsroom(api, self.store, self._reports)

    async def resync(self) -> None:
        """List all objects again, and reconcile the runs that they belong to."""
        await self._news.look_for_backends()
        for kind in (*TRAINING, SHORT_JOBS, PODS, RUNS):
            before = self.store.known(kind)
            listed = [
                item
                for namespace in self._namespaces
                for item in await asyncio.to_thread(self._api.listed, kind, namespace)
            ]
            for key in self.store.replace(kind, listed, before):
                self.poke(key)
            if kind == RUNS:  # those that were deleted while no watch was open
                for uid in before.keys() - self.store.known(RUNS).keys():
                    self._releases.let_go(Run(before[uid]))

    async def keep_in_step(self) -> None:
        """Resync periodically, forever."""
        while True:
            await asyncio.sleep(self._pace.resync)
            try:
                await self.resync()
            except Exception as error:  # noqa: BLE001  the API server may be unreachable for a while
                log.warning("resync failed and will be retried: %s", error)

    def heard(self, kind: str, change: str | None, found: Object) -> None:
        """Store a change that a watch reported, and reconcile its run. Release the snapshot of a deleted run."""
        known = self.store.drop if change == "DELETED" else self.store.put
        self.poke(known(kind, found))
        if kind == RUNS and change == "DELETED":
            self._releases.let_go(Run(found))

    def poke(self, key: Key) -> None:
        """Reconcile a run soon; start its task if it has none."""
        if key in self._tasks:
            self._pokes[key].set()
        elif key in self.store.runs:
            self._pokes[key] = asyncio.Event()
            self._tasks[key] = asyncio.create_task(self._follow(key), name="/".join(key))

    async def stop(self) -> None:
        """Cancel the tasks of all runs, then send the events that are queued."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self.events.drain()

    async def _follow(self, key: Key) -> None:
        failures = 0
        try:
            while key in self.store.runs:
                self._pokes[key].clear()
                try:
                    wait, failures = await self._look(key), 0
                except Exception as error:  # noqa: BLE001  the next reconciliation starts from the observed state
                    wait, failures = self._failed(key, error, failures)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._pokes[key].wait(), wait)
        finally:
            del self._tasks[key], self._pokes[key]
            self._reports.forget(key)
            self._news.forget(key)
            metrics.forget(key)

    def _failed(self, key: Key, error: Exception, failures: int) -> tuple[float, int]:
        if isinstance(error, ApiException) and error.status == 409:
            return 1.0, failures  # the run has changed or was deleted since it was read; the watch will report it
        said = "{}: {}".format(*words(error)) if isinstance(error, ApiException) else repr(error)
        log.warning(
            "reconciliation failed and will be retried: %s", said, extra={"run_namespace": key[0], "run": key[1]}
        )
        metrics.errors.inc()
        return BACKOFF_S[min(failures, len(BACKOFF_S) - 1)], failures + 1

    async def _look(self, key: Key) -> float:
        """Reconcile a run; return the seconds until the next time."""
        fresh = False
        for _ in range(ROUNDS):
            run, now = self.store.run(key), datetime.now(UTC)
            if run is None:
                break
            metrics.observe(key, run, now)
            with metrics.seconds.time():
                children = await self._children(run, key, now)
                run = self.store.run(key) or run  # the children may come with newer progress or a last checkpoint
                actions = plan(run, children, now)
                found = await self._carry_out(actions, run, now, fresh=fresh)
            fresh = any(item is self.store.runs.get(key) for _, item in found)
            if not found:
                await self._report(run)
                rests = run.phase in TERMINAL
                due = [max((a.at - now) / timedelta(seconds=1), 0.1) for a in actions if isinstance(a, LookAgain)]
                return min([self._pace.resync if rests else self._pace.tick, *due])
        return 1.0  # the state keeps changing

    async def _children(self, run: Run, key: Key, now: datetime) -> Children:
        if run.phase in ("WaitingForPods", "Running"):
            await self._make_sure(run, key)
        stalls = stalls_at(run)
        if stalls is not None and now >= stalls:  # or nobody has looked at its logs for so long
            await self._report(run, last=True)
            run = self.store.run(key) or run
        return children_of(run, key, self.store, await self._news.of(run, key, now))

    async def _make_sure(self, run: Run, key: Key) -> None:
        """Read a missing job, or the pods and last words of a failed one, again: watches report in any order."""
        backend = backend_of(run)
        job = self.store.job(run)
        if job is None:
            fresh = await asyncio.to_thread(self._api.get, backend.plural, run.namespace, run.child(run.attempt))
            self._know([(backend.plural, fresh)] if fresh else [])
        elif backend.failed(job):
            pods = await asyncio.to_thread(self._api.listed, PODS, run.namespace, run.name)
            self._know([(PODS, pod) for pod in pods])
            await self._report(run, last=True)

    async def _carry_out(self, actions: list[Action], run: Run, now: datetime, *, fresh: bool) -> Found:
        """Carry out actions; return the objects that changed, which may require further actions."""
        loop, changed = asyncio.get_running_loop(), Found()

        def say(event: Object) -> None:
            loop.call_soon_threadsafe(self.events.put, event)

        for action in actions:
            if isinstance(action, SetStatus) and action.changes.get("phase") == "Succeeded":
                await self._report(run, last=True)
                run = self.store.run((run.namespace, run.name)) or run
            found = await asyncio.to_thread(carry_out, action, run, self._api, now, say, fresh=fresh)
            self._know(found)
            if isinstance(action, SetStatus):
                phase = action.changes.get("phase", run.phase)
                if phase != run.phase:
                    metrics.transitions.labels(run.phase, phase).inc()
                said = about(run) | {"phase": phase, "reason": action.reason}
                log.log(logging.WARNING if action.warning else logging.INFO, action.message, extra=said)
            changed += found
        return changed

    def _know(self, found: Found) -> None:
        for kind, item in found:
            if kind in (RUNS, PODS, SHORT_JOBS, *TRAINING):
                self.store.put(kind, item)

    async def _report(self, run: Run, *, last: bool = False) -> None:
        """Bring progress and checkpoint of a run up to date."""
        job = self.store.job(run)
        if last or (run.phase == "Running" and job is not None and backend_of(run).is_running(job)):
            with contextlib.suppress(*NO_ANSWER):  # progress is worth less than the state of the run
                seen = await self._reports.update(run, last=last)
                self._know([(RUNS, seen)] if seen is not None else [])
