"""Read what training pods say in their logs: progress, checkpoints, and which of them spoke last."""

import asyncio
import logging
import math
from datetime import UTC, datetime

from capsfusion_k8s.backends import backend_of
from capsfusion_k8s.cluster.api import NO_ANSWER, Api, words
from capsfusion_k8s.cluster.kinds import PODS, ROOTS
from capsfusion_k8s.cluster.progress import Progress
from capsfusion_k8s.cluster.store import Key, Store
from capsfusion_k8s.objects.meta import UID
from capsfusion_k8s.run import GROUP, Object, Run, parsed, written

log = logging.getLogger("capsfusion.operator")
LINES = 200  # of a log's end: libraries may write much between two lines of progress
LOOKS = 4  # pods that are read in a tick to find the one that speaks
REST = 8  # ticks between two searches that found none: a command of the user may say no progress
LAST_LOOKS = 16  # pods that are read at the end of an attempt


class Reports:
    """Reads the progress of runs, at most once per tick and at the end of an attempt, and writes it to their status."""

    def __init__(self, api: Api, store: Store, tick_s: float) -> None:
        self._api, self._store, self._tick = api, store, tick_s
        self._read_at: dict[Key, float] = {}
        self._speakers: dict[Key, str] = {}  # the pod of rank 0, which may be any
        self._searched: dict[Key, int] = {}  # how many pods were read since the last report

    def forget(self, key: Key) -> None:
        """Forget a run."""
        for known in (self._read_at, self._speakers, self._searched):
            known.pop(key, None)

    async def update(self, run: Run, *, last: bool = False) -> Object | None:
        """Read the progress of the newest attempt; return the run with its new status, or None if nothing changed."""
        key, now = (run.namespace, run.name), asyncio.get_running_loop().time()
        if not last and now - self._read_at.get(key, -math.inf) < self._tick:
            return None
        self._read_at[key] = now
        found = await asyncio.to_thread(self._read, key, self._pods(run, key), LAST_LOOKS if last else LOOKS)
        if found is None:
            if not last and self._searched.get(key, 0) >= len(self._pods(run, key)):
                self._read_at[key] = now + self._tick * REST
                self._searched[key] = 0
            return None
        return await self._written(run, key, found)

    async def _written(self, run: Run, key: Key, found: Progress) -> Object | None:
        changes: Object = {}
        if found.progress and found.progress != run.status.get("progress"):
            changes["progress"] = found.progress
        known = run.status.get("checkpoint", {})
        time = found.checkpoint_time or (known.get("time") if known.get("step") == found.checkpoint_step else None)
        kept = {"uri": run.checkpoints, "step": found.checkpoint_step, "complete": True}
        kept["time"] = time or written(datetime.now(UTC))
        if found.checkpoint_step is not None and kept != known:
            changes["checkpoint"] = kept
        if not changes:
            return None
        seen = await asyncio.to_thread(self._api.patch_status, run, changes, as_seen=False)
        if kept["step"] is not None and kept["step"] != known.get("step"):
            await asyncio.to_thread(self._announce, run, self._pods(run, key), kept)
        return seen

    def _announce(self, run: Run, pods: list[Object], kept: Object) -> None:
        """Note the last checkpoint on the pods and on Kueue's Workload, for preemption that looks at it."""
        notes = {
            f"{GROUP}/last-checkpoint-step": str(kept["step"]), f"{GROUP}/last-checkpoint-time": kept["time"],
            "volcano.sh/last-checkpoint-time": kept["time"],
        }  # fmt: skip
        job = self._store.job(run)
        try:
            for pod in pods:
                root = f"/api/{ROOTS[PODS]}/namespaces/{run.namespace}/pods"
                self._api.annotate(f"{root}/{pod['metadata']['name']}", notes)
            for workload in (self._api.workloads(job) or []) if job and "queueName" in run.spec else []:
                self._api.annotate(workload["path"], notes)
        except NO_ANSWER as error:  # who looks at it sees an older checkpoint
            log.warning("cannot note the checkpoint: %s", words(error)[1], extra=about(run))

    async def last_heard(self, run: Run) -> str | None:
        """Return which pod of the newest attempt wrote to its log last, with its rank and the time."""
        return await asyncio.to_thread(self._last_heard, run, self._pods(run, (run.namespace, run.name)))

    def _last_heard(self, run: Run, pods: list[Object]) -> str | None:
        times = []
        for pod in pods:
            try:
                time = parsed(self._api.log(pod, 1, times=True).partition(" ")[0])
            except (*NO_ANSWER, ValueError):
                continue
            times.append((time, pod))
        if not times:
            return None
        (last, latest), (first, earliest) = max(times, key=lambda t: t[0]), min(times, key=lambda t: t[0])
        heard = f"{_named(run, latest)} was last heard of, at {written(last)}"
        return heard + (f", {_named(run, earliest)} at {written(first)}" if len(times) > 1 else "")

    def _pods(self, run: Run, key: Key) -> list[Object]:
        label = backend_of(run).rank_label
        pods = [pod for pod in self._store.pods(key, "trainer", run.attempt) if not pod.get("gone")]
        mine = [pod for pod in pods if pod["metadata"]["labels"].get(UID) == run.uid]
        return sorted(mine, key=lambda pod: (len(rank := str(pod["metadata"]["labels"].get(label, ""))), rank))

    def _read(self, key: Key, pods: list[Object], looks: int) -> Progress | None:
        """Return the progress that the known pod says, or that one of the next pods says, in turn."""
        known, begin = self._speakers.get(key), self._searched.get(key, 0)
        speakers = [pod for pod in pods if pod["metadata"]["name"] == known]
        turn = pods[begin:] + pods[:begin] if pods else []
        for pod in [*speakers, *turn[:looks]]:
            try:
                found = Progress.of_log(self._api.log(pod, LINES))
            except NO_ANSWER as error:
                log.debug("cannot read a log: %s", words(error)[1], extra={"run_namespace": key[0], "run": key[1]})
                found = None
            if found is not None:
                self._speakers[key] = pod["metadata"]["name"]
                self._searched[key] = 0
                return found
        self._searched[key] = begin + looks
        return None


def about(run: Run) -> dict[str, str]:
    """Return the fields of a log line that is about a run."""
    return {"run_namespace": run.namespace, "run": run.name}


def _named(run: Run, pod: Object) -> str:
    rank = pod["metadata"]["labels"].get(backend_of(run).rank_label, "?")
    return f"{pod['metadata']['name']} (node {rank})"
