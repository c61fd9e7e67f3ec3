"""Derive the input of `plan` from the store: the children of a run, and why they do not start."""

import re
from datetime import datetime

from capsfusion_k8s.actions import Children, Trouble
from capsfusion_k8s.build import ATTEMPT, CONTAINER, ROLE
from capsfusion_k8s.pytorchjob import has
from capsfusion_k8s.resolve import Resolved
from capsfusion_k8s.run import Object, Run, parsed
from capsfusion_k8s.store import JOBS, SHORT_JOBS, Key, Store

# Reasons of the kubelet for a waiting container that needs somebody to intervene.
STUCK = {
    "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
    "CreateContainerError", "RunContainerError",
}  # fmt: skip


def children_of(run: Run, key: Key, store: Store, warnings: list[str]) -> Children:
    """Return the children of a run.

    Args:
        warnings: Messages of warning events about the job that the run waits for, oldest first; used if it has no pods.
    """
    jobs = {int(job["metadata"]["labels"][ATTEMPT]): job for job in store.of(JOBS, key) if is_of(job, run.uid)}
    short = [job for job in store.of(SHORT_JOBS, key) if is_of(job, run.uid)]
    resolver = next((job for job in short if job["metadata"]["labels"].get(ROLE) == "resolver"), None)
    resolving = [pod for pod in store.pods(key, "resolver") if resolver and is_of(pod, resolver["metadata"]["uid"])]
    job = jobs.get(run.attempt)
    pods = [pod for pod in store.pods(key, "trainer", run.attempt) if job is None or is_of(pod, job["metadata"]["uid"])]
    waiting = pods if run.attempt else resolving
    return Children(
        resolver=resolver,
        resolved=resolved(resolver, resolving),
        resolver_runs=any(pod["status"].get("phase") == "Running" for pod in resolving),
        keepers={job["metadata"]["name"]: job for job in short},
        jobs=jobs,
        pods=pods,
        ending=[
            f"{pod['metadata']['name']} on {pod['spec'].get('nodeName', 'no node')}"
            for pod in store.pods(key, "trainer")
            if not pod.get("gone") and pod["status"].get("phase") in ("Pending", "Running")
        ],
        trouble=_trouble(waiting) or (_of_event(warnings[-1]) if warnings and not waiting else None),
    )


def is_of(child: Object, uid: str) -> bool:
    """Return whether an object is owned by the one with this uid.

    Labels hold names, and a run may be deleted and made anew under its name: the children of the first may live on.
    """
    return any(owner.get("uid") == uid for owner in child["metadata"].get("ownerReferences") or [])


def resolved(job: Object | None, pods: list[Object]) -> Resolved | None:
    """Return the result of the resolve Job, or None while it is unfinished."""
    messages = [
        state["terminated"].get("message", "")
        for pod in pods
        for status in pod["status"].get("containerStatuses") or []
        if status.get("name") == CONTAINER  # not what a mesh has injected
        and "terminated" in (state := status.get("state", {}))
        and state["terminated"].get("exitCode") == 0
    ]
    if messages:
        return Resolved.parse(messages[-1])
    if job is not None and has(job, "Failed"):
        return Resolved(error=f"the resolve Job failed: {_last_words(pods)}")
    if job is not None and has(job, "Complete"):
        return Resolved(error="the resolve Job completed, but its pod was deleted before its result was read")
    return None


def _last_words(pods: list[Object]) -> str:
    for pod in reversed(pods):
        for status in pod["status"].get("containerStatuses") or []:
            ended = status.get("state", {}).get("terminated")
            if ended:
                return f"exit code {ended['exitCode']}: {(ended.get('message') or ended.get('reason', ''))[-500:]}"
    return "none of its pods is left to show why"


def _of_event(warning: str) -> Trouble:
    """Drop the pod's name from a message: it changes with each retry and would look like a new problem."""
    return Trouble("FailedCreate", re.sub(r'pods "\S+" is', "its pod is", warning))


def _trouble(pods: list[Object]) -> Trouble | None:
    for pod in pods:
        for condition in pod["status"].get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return Trouble(condition.get("reason", "Unschedulable"), condition.get("message", ""))
        for status in pod["status"].get("containerStatuses") or []:
            waiting = status.get("state", {}).get("waiting") or {}
            if waiting.get("reason") in STUCK:
                return Trouble(waiting["reason"], f"{pod['metadata']['name']}: {waiting.get('message', '')}")
    return None


def age(found: Object, now: datetime) -> float:
    """Return the seconds since an object was created."""
    return (now - parsed(found["metadata"]["creationTimestamp"])).total_seconds()
