"""Prometheus endpoint with the metrics of the last step, if CAPSFUSION_METRICS_PORT is set."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, start_http_server

VARIABLE = "CAPSFUSION_METRICS_PORT"


def exporter(open_: ExitStack) -> Callable[[Mapping[str, Any]], None]:
    """Start the endpoint, which stops when `open_` closes; return a function that publishes a step's metrics.

    Without a port, no endpoint starts and the function does nothing.
    """
    port = os.environ.get(VARIABLE)
    if not port:
        return lambda metrics: None
    registry, gauges = CollectorRegistry(), dict[str, Gauge]()
    server, thread = start_http_server(int(port), registry=registry)
    open_.callback(thread.join)
    open_.callback(server.server_close)
    open_.callback(server.shutdown)

    def export(metrics: Mapping[str, Any]) -> None:
        for name, value in metrics.items():
            if isinstance(value, int | float):
                if name not in gauges:
                    gauges[name] = Gauge(f"capsfusion_trainer_{name}", f"{name} of the last step", registry=registry)
                gauges[name].set(value)

    return export
