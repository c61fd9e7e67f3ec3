"""What a training tells Prometheus, if CAPSFUSION_METRICS_PORT names a port: the numbers of its last step."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, start_http_server

VARIABLE = "CAPSFUSION_METRICS_PORT"


def exporter(open_: ExitStack) -> Callable[[Mapping[str, Any]], None]:
    """Serve until `open_` closes; the function takes a step's metrics. Without a port nothing comes of them."""
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
