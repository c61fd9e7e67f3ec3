"""The operator's process: kopf's watches report changes to `Followers`.

It writes no finalizers and no annotations on runs, so that nothing blocks while the operator is down.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import kopf
from kubernetes import client, config
from kubernetes.config import ConfigException
from prometheus_client import start_http_server
from urllib3.util import Retry

from capsfusion_k8s.backends import BACKENDS
from capsfusion_k8s.cluster import metrics
from capsfusion_k8s.cluster.api import Api
from capsfusion_k8s.cluster.follow import Followers, Pace
from capsfusion_k8s.cluster.kinds import PODS, ROOTS, RUNS, SHORT_JOBS
from capsfusion_k8s.cluster.waiting import restart_when, wait_for
from capsfusion_k8s.objects.meta import LABEL

NO_RUNS = "the kind CaptionTrainingRun is missing in this cluster: install the chart capsfusion-crds; waiting for it"


def connect() -> client.ApiClient:
    """Return a client with the service account of this pod, or else with the user's kubeconfig.

    Raises:
        ConfigException: There is neither.
    """
    try:
        config.load_incluster_config()
    except ConfigException:
        config.load_kube_config()
    chosen = client.Configuration.get_default_copy()
    chosen.retries = Retry(connect=2, read=0, redirect=0)  # a request that was not answered in time is made again later
    return client.ApiClient(chosen)


def serve(namespaces: Sequence[str] | None, *, metrics_port: int, liveness: str | None, pace: Pace) -> None:
    """Reconcile the runs in some namespaces, or in all (None), until SIGTERM.

    Args:
        metrics_port: Port for Prometheus, open once all runs are followed; 0 disables it.
        liveness: URL to serve the liveness probe at, or None.
    """
    api = Api(connect(), lambda verb, kind: metrics.requests.labels(verb, kind).inc())
    wait_for(lambda: api.has(ROOTS[RUNS], RUNS), NO_RUNS, liveness)
    known = api.backends()
    followers = Followers(api, namespaces, pace)
    registry = kopf.OperatorRegistry()
    kinds = [RUNS, SHORT_JOBS, PODS, *(BACKENDS[name].plural for name in sorted(known))]
    for kind in kinds:
        group, _, version = ROOTS[kind].rpartition("/")
        labels = None if kind == RUNS else {LABEL: kopf.PRESENT}
        kopf.on.event(group, version, kind, id=kind, labels=labels, registry=registry)(_hearing(followers, kind))
    background: list[asyncio.Task[None]] = []

    async def begin(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings, kinds)
        await followers.resync()
        changed = restart_when(lambda: api.backends() != known, "the kinds of training job have changed: restarting")
        background.extend(map(asyncio.create_task, (followers.keep_in_step(), followers.events.send(), changed)))
        if metrics_port:
            start_http_server(metrics_port)

    async def end(**_: Any) -> None:
        await followers.stop()
        for task in background:
            task.cancel()

    kopf.on.login(registry=registry)(kopf.login_via_client)
    kopf.on.startup(registry=registry)(begin)
    kopf.on.cleanup(registry=registry)(end)
    kopf.run(
        registry=registry, standalone=True, clusterwide=namespaces is None, namespaces=list(namespaces or []),
        liveness_endpoint=liveness,
    )  # fmt: skip


def _hearing(followers: Followers, kind: str) -> Callable[..., Any]:
    async def heard(type: str | None, body: kopf.Body, **_: Any) -> None:
        followers.heard(kind, type, dict(body))

    return heard


def _configure(settings: kopf.OperatorSettings, kinds: Sequence[str]) -> None:
    settings.posting.enabled = False  # `Followers.events` sends the events, each once
    # Renew silent watches: a connection can break without an error.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.scanning.disabled = True  # watching for new kinds requires cluster-wide permissions
    # Thousands of finished pods, of 10 kB each, are never in memory at once; `Store` keeps a tenth of each.
    settings.watching.chunk_size = 100
    settings.queueing.idle_timeout = 0.1
    for kind in kinds:
        if kind != RUNS:
            settings.watching.label_selectors[kind] = LABEL
