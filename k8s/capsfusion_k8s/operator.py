"""The operator's process: kopf's watches tell the followers what changes.

It writes no finalizer and no annotation, so that nothing waits for it when it is gone.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import kopf
from kubernetes import client, config
from kubernetes.config import ConfigException
from prometheus_client import start_http_server

from capsfusion_k8s import metrics
from capsfusion_k8s.api import Api
from capsfusion_k8s.build import LABEL
from capsfusion_k8s.carry_out import NO_PYTORCHJOBS
from capsfusion_k8s.follow import Followers, Pace
from capsfusion_k8s.run import GROUP, PLURAL, VERSION
from capsfusion_k8s.store import JOBS, PODS, RUNS, SHORT_JOBS

log = logging.getLogger("capsfusion.operator")
WATCHED = {
    RUNS: (GROUP, VERSION, PLURAL),
    JOBS: ("kubeflow.org", "v1", "pytorchjobs"),
    SHORT_JOBS: ("batch", "v1", "jobs"),
    PODS: ("", "v1", "pods"),
}
LOOKS_FOR_PYTORCHJOBS_S = 15.0


def connect() -> client.ApiClient:
    """From within a pod, or by the user's kubeconfig."""
    try:
        config.load_incluster_config()
    except ConfigException:
        config.load_kube_config()
    return client.ApiClient()


def serve(namespace: str | None, *, metrics_port: int, liveness: str | None, pace: Pace) -> None:
    """Follow the runs of a namespace, or of all with None, until SIGTERM."""
    api_client = connect()
    known = _has_pytorchjobs(api_client)
    followers = Followers(
        Api(api_client, lambda verb, kind: metrics.requests.labels(verb, kind).inc()), namespace, pace
    )
    registry = kopf.OperatorRegistry()
    for kind, (group, version, plural) in WATCHED.items():
        labels = None if kind == RUNS else {LABEL: kopf.PRESENT}
        kopf.on.event(group, version, plural, id=kind, labels=labels, registry=registry)(_hearing(followers, kind))
    background: list[asyncio.Task[None]] = []

    async def begin(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)
        if metrics_port:
            start_http_server(metrics_port)
        await followers.resync()
        background.extend(map(asyncio.create_task, (followers.keep_in_step(), followers.speak())))
        if not known:
            background.append(asyncio.create_task(_until_pytorchjobs(api_client)))

    async def end(**_: Any) -> None:
        await followers.stop()
        for task in background:
            task.cancel()

    kopf.on.login(registry=registry)(kopf.login_via_client)
    kopf.on.startup(registry=registry)(begin)
    kopf.on.cleanup(registry=registry)(end)
    kopf.run(
        registry=registry, standalone=True, clusterwide=namespace is None, namespaces=[namespace] if namespace else [],
        liveness_endpoint=liveness,
    )  # fmt: skip


def _hearing(followers: Followers, kind: str) -> Callable[..., Any]:
    async def heard(type: str | None, body: kopf.Body, **_: Any) -> None:
        followers.heard(kind, type, dict(body))

    return heard


def _configure(settings: kopf.OperatorSettings) -> None:
    settings.posting.enabled = False  # events are ours, each once
    # A watch that says nothing is asked anew: a connection can die without a word.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.scanning.disabled = True  # to watch for new kinds asks for rights on the whole cluster


def _has_pytorchjobs(api_client: client.ApiClient) -> bool:
    try:
        api_client.call_api("/apis/kubeflow.org/v1", "GET", auth_settings=["BearerToken"], response_type="object")
    except client.ApiException as error:
        if error.status == 404:
            return False
        raise
    return True


async def _until_pytorchjobs(api_client: client.ApiClient) -> None:
    """Watches begin at the start: begin anew once there is something to watch. What is known is in the cluster."""
    log.warning(NO_PYTORCHJOBS)
    while True:
        await asyncio.sleep(LOOKS_FOR_PYTORCHJOBS_S)
        with contextlib.suppress(Exception):  # asked again
            if await asyncio.to_thread(_has_pytorchjobs, api_client):
                log.warning("PyTorchJobs are there: starting again to watch them")
                os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
