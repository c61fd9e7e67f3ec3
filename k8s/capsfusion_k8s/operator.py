"""The operator's process: kopf's watches report changes to `Followers`.

It writes no finalizers and no annotations, so that nothing blocks while the operator is down.
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
    """Return a client with the service account of this pod, or else with the user's kubeconfig.

    Raises:
        ConfigException: There is neither.
    """
    try:
        config.load_incluster_config()
    except ConfigException:
        config.load_kube_config()
    return client.ApiClient()


def serve(namespace: str | None, *, metrics_port: int, liveness: str | None, pace: Pace) -> None:
    """Reconcile the runs in a namespace, or in all namespaces (None), until SIGTERM.

    Args:
        metrics_port: Port for Prometheus; 0 disables it.
        liveness: URL to serve the liveness probe at, or None.
    """
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
    settings.posting.enabled = False  # `Followers.speak` sends the events, each once
    # Renew silent watches: a connection can break without an error.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.scanning.disabled = True  # watching for new kinds requires cluster-wide permissions


def _has_pytorchjobs(api_client: client.ApiClient) -> bool:
    """Return whether the cluster has the kind. The group alone says nothing: notebooks are in it, too."""
    try:
        found: Any = api_client.call_api(
            "/apis/kubeflow.org/v1", "GET", auth_settings=["BearerToken"], response_type="object",
            _return_http_data_only=True,
        )  # fmt: skip
    except client.ApiException as error:
        if error.status == 404:
            return False
        raise
    return any(resource.get("name") == "pytorchjobs" for resource in found.get("resources") or [])


async def _until_pytorchjobs(api_client: client.ApiClient) -> None:
    """Wait until the kind PyTorchJob exists, then replace this process.

    kopf starts its watches at startup only. A restart loses nothing: all state is in the cluster.
    """
    log.warning(NO_PYTORCHJOBS)
    while True:
        await asyncio.sleep(LOOKS_FOR_PYTORCHJOBS_S)
        with contextlib.suppress(Exception):  # retried
            if await asyncio.to_thread(_has_pytorchjobs, api_client):
                log.warning("the kind PyTorchJob exists now: restarting to watch it")
                os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
