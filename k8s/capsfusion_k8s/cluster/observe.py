"""Derive the input of `plan` from the store: the children of a run, and why they do not start."""

import re
from dataclasses import dataclass, field

from capsfusion_k8s.backends import backend_of
from capsfusion_k8s.cluster.kinds import SHORT_JOBS
from capsfusion_k8s.cluster.store import Key, Store
from capsfusion_k8s.objects.meta import ROLE, UID, condition, has, is_of, main_statuses
from capsfusion_k8s.planning.actions import Children, Trouble
from capsfusion_k8s.planning.resolve import Resolved
from capsfusion_k8s.run import Object, Run

# Reasons of the kubelet for a waiting container that needs somebody to intervene.
STUCK = {
    "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
    "CreateContainerError", "RunContainerError",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class News:
    """What is not in the store: read from the API server when a run needs it.

    Attributes:
        warnings: Messages of warning events about the job that the run waits for, oldest first; used without pods.
        queue: Why the queue does not start the job, or took its machines back.
        last_heard: Which pod of a stalled attempt wrote to its log last.
        backends: Names of the backends whose kinds the cluster has.
    """

    warnings: list[str] = field(default_factory=list)
    queue: Trouble | None = None
    last_heard: str | None = None
    backends: frozenset[str] = frozenset()


def children_of(run: Run, key: Key, store: Store, news: News) -> Children:
    """Return the children of a run."""
    mine = [job for job in store.of(backend_of(run).plural, key) if is_of(job, run.uid)]
    jobs = {attempt: job for job in mine if (attempt := run.attempt_named(job["metadata"]["name"])) is not None}
    short = [job for job in store.of(SHORT_JOBS, key) if is_of(job, run.uid)]
    resolver = next((job for job in short if job["metadata"]["labels"].get(ROLE) == "resolver"), None)
    resolving = [pod for pod in store.pods(key, "resolver") if _made_for(run, pod)]
    pods = [pod for pod in store.pods(key, "trainer", run.attempt) if _made_for(run, pod)]
    there = [pod for pod in pods if not pod.get("gone") and "deletionTimestamp" not in pod["metadata"]]
    waiting = there if run.attempt else resolving
    said = _of_event(news.warnings[-1]) if news.warnings and not waiting else None
    return Children(
        resolver=resolver,
        resolved=resolved(resolver, resolving),
        resolver_runs=any(pod["status"].get("phase") == "Running" for pod in resolving),
        keepers={job["metadata"]["name"]: job for job in short},
        jobs=jobs,
        pods=pods,
        there=len(there),
        ran=sum(pod["status"].get("phase") in ("Running", "Succeeded") for pod in there),
        ending=[
            f"{pod['metadata']['name']} on {pod['spec'].get('nodeName', 'no node')}"
            for pod in store.pods(key, "trainer")
            if not pod.get("gone") and pod["status"].get("phase") in ("Pending", "Running")
        ],
        trouble=_trouble(waiting) or said,
        queue=news.queue,
        backends=news.backends,
        last_heard=news.last_heard,
    )


def _made_for(run: Run, pod: Object) -> bool:
    """Return whether a pod is the run's, and not one that a deleted run of the same name left behind."""
    return bool(pod["metadata"]["labels"].get(UID) == run.uid)


def resolved(job: Object | None, pods: list[Object]) -> Resolved | None:
    """Return the result of the resolve Job, or None while it is unfinished."""
    messages = [
        state["terminated"].get("message", "")
        for pod in pods
        for status in main_statuses(pod)
        if "terminated" in (state := status.get("state", {})) and state["terminated"].get("exitCode") == 0
    ]
    if messages:
        return Resolved.parse(messages[-1])
    if job is not None and has(job, "Failed"):
        why = _last_words(pods) or condition(job, "Failed").get("message") or "none of its pods is left to show why"
        return Resolved(error=f"the resolve Job failed: {why}")
    if job is not None and has(job, "Complete"):
        return Resolved(error="the resolve Job completed, but its pod was deleted before its result was read")
    return None


def _last_words(pods: list[Object]) -> str | None:
    for pod in reversed(pods):
        for status in pod["status"].get("containerStatuses") or []:
            ended = status.get("state", {}).get("terminated")
            if ended:
                return f"exit code {ended['exitCode']}: {(ended.get('message') or ended.get('reason', ''))[-500:]}"
    return None


def _of_event(warning: str) -> Trouble:
    """Drop the pod's name from a message: it changes with each retry and would look like a new problem."""
    return Trouble("FailedCreate", re.sub(r'pods "\S+" is', "its pod is", warning))


def _trouble(pods: list[Object]) -> Trouble | None:
    for pod in pods:
        placed = condition(pod, "PodScheduled")
        if placed.get("status") == "False":
            return Trouble(placed.get("reason", "Unschedulable"), placed.get("message", ""))
        for status in pod["status"].get("containerStatuses") or []:
            waiting = status.get("state", {}).get("waiting") or {}
            if waiting.get("reason") in STUCK:
                return Trouble(waiting["reason"], f"{pod['metadata']['name']}: {waiting.get('message', '')}")
    return None
