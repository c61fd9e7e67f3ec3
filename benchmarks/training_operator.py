"""Compare the latency of our operator with that of Kubeflow's training operator, on one API server with fake nodes.

    sudo python benchmarks/training_operator.py [--one-by-one 20] [--at-once 200]

`operator`: from the creation of a run to its PyTorchJob, without the time of the resolve Job (from its creation to the
end of its pod). `training operator`: from the PyTorchJob to the last of its two pods. A watch takes both times.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cluster"))
from conftest import Operator, Runs, installed
from kubernetes import client, watch
from plane import CRD, Plane, until
from prerequisites import programs
from urllib3.exceptions import HTTPError


class Seen:
    """Times at which watches saw the resolve Job, the PyTorchJob and the pods of each run."""

    def __init__(self, plane: Plane, namespace: str) -> None:
        self.times: dict[str, dict[str, float]] = defaultdict(dict)
        custom, batch, core = (
            kind(plane.api) for kind in (client.CustomObjectsApi, client.BatchV1Api, client.CoreV1Api)
        )
        for listing, arguments, note in (
            (custom.list_namespaced_custom_object, ("kubeflow.org", "v1", namespace, "pytorchjobs"), self._job),
            (batch.list_namespaced_job, (namespace,), self._resolver),
            (core.list_namespaced_pod, (namespace,), self._pod),
        ):
            threading.Thread(target=self._watch, args=(listing, arguments, note), daemon=True).start()

    def _watch(self, listing: Any, arguments: Any, note: Any) -> None:
        with contextlib.suppress(HTTPError):  # the cluster has stopped
            for event in watch.Watch().stream(listing, *arguments):
                found = event["raw_object"]
                note(found["metadata"]["labels"]["capsfusion.io/run"], found, time.monotonic())

    def _job(self, run: str, found: Any, now: float) -> None:
        self.times[run].setdefault("job", now)

    def _resolver(self, run: str, found: Any, now: float) -> None:
        self.times[run].setdefault("resolver", now)

    def _pod(self, run: str, found: Any, now: float) -> None:
        if found["metadata"]["labels"]["capsfusion.io/role"] == "trainer":
            self.times[run].setdefault(found["metadata"]["name"][-1], now)
        elif found["status"]["phase"] == "Succeeded":
            self.times[run].setdefault("resolved", now)


def one_by_one(runs: Runs, seen: Seen, count: int) -> None:
    """Submit `count` runs one after the other; print the latency of both operators."""
    ours, theirs = [], []
    for name in (f"one-{number}" for number in range(count)):
        times, started = seen.times[name], time.monotonic()
        runs.submit(name)
        until(partial({"job", "0", "1"}.issubset, times), "its pods are there", every_s=0.02)
        ours.append(times["job"] - started - (times["resolved"] - times["resolver"]))
        theirs.append(max(times["0"], times["1"]) - times["job"])
        runs.plane.call(f"{runs.path}/{name}", "DELETE")
        while runs.pods(name):  # their removal would slow the next run down
            time.sleep(0.1)
        time.sleep(0.5)
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"one by one, {count} runs: operator {_ms(ours)}, training operator {_ms(theirs)}, ratio {ratio:.2f}")


def at_once(runs: Runs, operator: Operator, count: int) -> None:
    """Submit `count` runs at once; print the time to the end and our operator's memory, CPU and requests."""
    account = f"{runs.namespace}:x-capsfusion-operator"
    before = len(runs.plane.requests(account))
    assert operator.process is not None
    process, peak, done = psutil.Process(operator.process.pid), 0, 0
    started = time.monotonic()
    for number in range(count):
        runs.submit(f"many-{number}", annotations={"test/exit": "0", "test/after": "1s"})
    submitted = time.monotonic() - started
    while done < count:
        peak = max(peak, process.memory_info().rss)
        many = [item for item in runs.plane.call(runs.path)["items"] if item["metadata"]["name"].startswith("many")]
        done = sum(item.get("status", {}).get("phase") == "Succeeded" for item in many)
        time.sleep(1)
    took, cpu = time.monotonic() - started, sum(process.cpu_times()[:2])
    asked = runs.plane.requests(account)[before:]
    print(f"at once, {count} runs: submitted in {submitted:.1f} s, all succeeded after {took:.1f} s")
    print(
        f"peak {peak / 2**20:.0f} MiB, cpu {cpu:.0f} s; requests: {len(asked) / count:.1f} per run of five transitions"
    )
    for words, n in Counter(map(_words, asked)).most_common():
        print(f"  {n / count:6.2f} per run  {words}")


def _words(request: dict[str, Any]) -> str:
    about = request["objectRef"]
    return "/".join(filter(None, [f"{request['verb']} {about['resource']}", about.get("subresource")]))


def _ms(values: list[float]) -> str:
    low, middle, high = (sorted(values)[int(q * (len(values) - 1))] for q in (0.1, 0.5, 0.9))
    return f"{1000 * middle:.0f} ms ({1000 * low:.0f} to {1000 * high:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one-by-one", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=200)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plane, operator = Plane(programs(), Path(folder)), None
        try:
            plane.control_plane(CRD, plane.programs / "pytorchjobs.yaml")
            plane.training_operator()
            plane.fake_nodes()
            runs, operator = installed(plane, Path(folder) / "operator.log")
            operator.start("--metrics-port", "0", "--tick", "15")
            seen = Seen(plane, runs.namespace)
            runs.submit("warm-up", annotations={"test/exit": "0"})
            runs.wait("warm-up", "Succeeded")
            one_by_one(runs, seen, chosen.one_by_one)
            at_once(runs, operator, chosen.at_once)
        finally:
            if operator is not None:
                operator.end()
            plane.stop()


if __name__ == "__main__":
    main()
