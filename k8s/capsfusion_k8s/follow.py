"""Reconcile every run: on each change and periodically, call `plan` and carry out its actions.

Each run has one task, so that it is never reconciled twice at once. The store belongs to the event loop; requests run
in threads.
"""

import asyncio
import contextlib
import logging
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from kubernetes.client import ApiException

from capsfusion_k8s import metrics
from capsfusion_k8s.actions import Action, Children, LookAgain, SetStatus
from capsfusion_k8s.api import Api, words
from capsfusion_k8s.carry_out import Found, carry_out
from capsfusion_k8s.observe import age, children_of
from capsfusion_k8s.plan import plan
from capsfusion_k8s.progress import Progress
from capsfusion_k8s.pytorchjob import has, is_running
from capsfusion_k8s.release import Releases
from capsfusion_k8s.run import TERMINAL, Object, Run
from capsfusion_k8s.store import JOBS, PODS, RUNS, SHORT_JOBS, Key, Store

log = logging.getLogger("capsfusion.operator")
TICK_S = 15.0  # between reconciliations of a run without changes, for progress and time limits
RESYNC_S = 600.0  # between full lists of all objects: a watch can miss a deletion
EVENTS_AFTER_S = 3.0  # read the events of a job that has had no pods for this long
ROUNDS = 12  # of `plan` in one reconciliation: more than a run has phases
SAY_AFTER_S, LAST_WORDS_S = 0.05, 5.0  # delay before events are sent; time to send the rest at shutdown
BACKOFF_S = (1, 2, 5, 10, 30)  # after consecutive errors


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between periodic reconciliations (`tick`) and between full lists (`resync`)."""

    tick: float = TICK_S
    resync: float = RESYNC_S


class Followers:
    """Reconcilers of the runs in a namespace, or in all namespaces (None)."""

    def __init__(self, api: Api, namespace: str | None, pace: Pace) -> None:
        self.store = Store()
        self._api, self._namespace, self._pace = api, namespace, pace
        self._pokes: dict[Key, asyncio.Event] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._events: asyncio.Queue[Object] = asyncio.Queue()
        self._releases = Releases(api)
        self._read_at: dict[Key, float] = {}
        self._speakers: dict[Key, str] = {}  # the pod that logs the progress: that of rank 0, which may be any pod

    async def resync(self) -> None:
        """List all objects again, and reconcile the runs that they belong to."""
        for kind in (JOBS, SHORT_JOBS, PODS, RUNS):
            before = self.store.known(kind)
            listed = await asyncio.to_thread(self._api.listed, kind, self._namespace)
            for key in self.store.replace(kind, listed, before):
                self.poke(key)
            if kind == RUNS:  # those that were deleted while no watch was open
                for uid in before.keys() - self.store.known(RUNS).keys():
                    self._releases.let_go(Run(before[uid]))

    async def speak(self) -> None:
        """Send queued events in order, forever. A failure is logged and not retried."""
        while True:
            event = await self._events.get()
            if self._events.empty():
                await asyncio.sleep(SAY_AFTER_S)  # let the run's next requests go first
            try:
                await asyncio.to_thread(self._api.say, event)
            except Exception as error:  # noqa: BLE001  the status has the same reason and message
                log.warning("cannot send an event: %s", error)
            finally:
                self._events.task_done()

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
        """Cancel the tasks of all runs, then wait up to LAST_WORDS_S for queued events to be sent."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._events.join(), LAST_WORDS_S)

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
            self._speakers.pop(key, None)
            self._read_at.pop(key, None)
            metrics.forget(key)

    def _failed(self, key: Key, error: Exception, failures: int) -> tuple[float, int]:
        if isinstance(error, ApiException) and error.status == 409:
            return 1.0, failures  # the run has changed since it was read; the watch will report it
        said = "{}: {}".format(*words(error)) if isinstance(error, ApiException) else repr(error)
        log.warning("reconciled in vain, will retry: %s", said, extra=_about(key))
        metrics.errors.inc()
        return BACKOFF_S[min(failures, len(BACKOFF_S) - 1)], failures + 1

    async def _look(self, key: Key) -> float:
        """Reconcile a run; return the seconds until the next time."""
        fresh = False
        for _ in range(ROUNDS):
            run, now = self.store.run(key), datetime.now(UTC)
            if run is None:
                break
            metrics.phase(key, run.phase)
            with metrics.seconds.time():
                actions = plan(run, await self._children(run, key, now), now)
                found = await self._carry_out(actions, run, now, fresh=fresh)
            fresh = any(item is self.store.runs.get(key) for _, item in found)
            if not found:
                await self._progress(run, key)
                rests = run.phase in TERMINAL and "ttlSecondsAfterFinished" not in run.spec
                due = [max((a.at - now) / timedelta(seconds=1), 0.1) for a in actions if isinstance(a, LookAgain)]
                return min([self._pace.resync if rests else self._pace.tick, *due])
        return 1.0  # the state keeps changing

    async def _children(self, run: Run, key: Key, now: datetime) -> Children:
        if run.phase == "Running":
            await self._make_sure(run, key)
        waiting = self._job(run, key) if run.attempt else self.store.resolver(key)
        role = "trainer" if run.attempt else "resolver"
        warnings: list[str] = []
        if (
            waiting
            and run.phase in ("Resolving", "Gating", "Queued")
            and not self.store.pods(key, role)
            and age(waiting, now) > EVENTS_AFTER_S
        ):
            warnings = await asyncio.to_thread(self._api.events, waiting)
        return children_of(run, key, self.store, warnings)

    async def _make_sure(self, run: Run, key: Key) -> None:
        """Read a missing job, or the pods of a failed one, again: watches report objects in any order."""
        job = self._job(run, key)
        if job is None:
            fresh = await asyncio.to_thread(self._api.get, JOBS, run.namespace, run.child(run.attempt))
            self._know([(JOBS, fresh)] if fresh else [])
        elif has(job, "Failed"):
            pods = await asyncio.to_thread(self._api.listed, PODS, run.namespace, run.name)
            self._know([(PODS, pod) for pod in pods])

    def _job(self, run: Run, key: Key) -> Object | None:
        name = run.child(run.attempt)
        return next((job for job in self.store.of(JOBS, key) if job["metadata"]["name"] == name), None)

    async def _carry_out(self, actions: list[Action], run: Run, now: datetime, *, fresh: bool) -> Found:
        """Carry out actions; return the objects that changed, which may require further actions."""
        loop, changed = asyncio.get_running_loop(), Found()

        def say(event: Object) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, event)

        for action in actions:
            if isinstance(action, SetStatus) and action.changes.get("phase") == "Succeeded":
                with contextlib.suppress(ApiException):  # the last progress is worth less than the end of the run
                    await self._progress(run, (run.namespace, run.name), last=True)
                run = self.store.run((run.namespace, run.name)) or run
            found = await asyncio.to_thread(carry_out, action, run, self._api, now, say, fresh=fresh)
            self._know(found)
            if isinstance(action, SetStatus):
                phase = action.changes.get("phase", run.phase)
                if phase != run.phase:
                    metrics.transitions.labels(run.phase, phase).inc()
                about = _about((run.namespace, run.name)) | {"phase": phase, "reason": action.reason}
                log.log(logging.WARNING if action.warning else logging.INFO, action.message, extra=about)
            changed += found
        return changed

    def _know(self, found: Found) -> None:
        for kind, item in found:
            self.store.put(kind, item)

    async def _progress(self, run: Run, key: Key, *, last: bool = False) -> None:
        """Read the progress from the pods' logs, once per tick and on success; write it if it has changed."""
        job, time = self._job(run, key), asyncio.get_running_loop().time()
        running = run.phase == "Running" and job is not None and is_running(job)
        if not last and (not running or time - self._read_at.get(key, -math.inf) < self._pace.tick):
            return
        self._read_at[key] = time
        pods = [pod["metadata"]["name"] for pod in self.store.pods(key, "trainer", run.attempt) if not pod.get("gone")]
        found = await asyncio.to_thread(self._read, key, pods)
        if found is None:
            return
        changes: Object = {}
        if found.progress and found.progress != run.status.get("progress"):
            changes["progress"] = found.progress
        kept = {"uri": run.checkpoints, "step": found.checkpoint_step, "complete": True}
        if found.checkpoint_step is not None and kept != run.status.get("checkpoint"):
            changes["checkpoint"] = kept
        if changes:
            write = partial(self._api.patch_status, run, changes, as_seen=False)
            self._know([(RUNS, await asyncio.to_thread(write))])

    def _read(self, key: Key, pods: list[str]) -> Progress | None:
        known = self._speakers.get(key)
        for name in sorted(pods, key=lambda name: name != known):
            try:
                found = Progress.of_log(self._api.log(key[0], name, lines=40))
            except ApiException as error:
                log.debug("cannot read the log of %s: %s", name, words(error)[1], extra=_about(key))
                continue
            if found is not None:
                self._speakers[key] = name
                return found
        return None


def _about(key: Key) -> dict[str, str]:
    return {"run_namespace": key[0], "run": key[1]}
