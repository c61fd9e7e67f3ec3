"""The operator beside Kubeflow's training operator, in one run on one API server with fake nodes.

    sudo python benchmarks/operator.py [--one-by-one 20] [--at-once 200]

`operator`: from the creation of a run to its PyTorchJob, less the resolve Job's own time (from its creation to the end of
its pod). `training operator`: from the PyTorchJob to the last of its two pods. Both as a watch sees them.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cluster"))
from conftest import Operator, Runs, installed  # noqa: E402
from kubernetes import client, watch  # noqa: E402
from plane import CRD, Plane, programs, until  # noqa: E402
from urllib3.exceptions import HTTPError  # noqa: E402


class Seen:
    """When a watch saw what, by run."""

    def __init__(self, plane: Plane, namespace: str) -> None:
        self.times: dict[str, dict[str, float]] = defaultdict(dict)
        custom, batch, core = (kind(plane.api) for kind in (client.CustomObjectsApi, client.BatchV1Api, client.CoreV1Api))
        for listing, arguments, note in (
            (custom.list_namespaced_custom_object, ("kubeflow.org", "v1", namespace, "pytorchjobs"), self._job),
            (batch.list_namespaced_job, (namespace,), self._resolver),
            (core.list_namespaced_pod, (namespace,), self._pod),
        ):
            threading.Thread(target=self._watch, args=(listing, arguments, note), daemon=True).start()

    def _watch(self, listing: Any, arguments: Any, note: Any) -> None:
        with contextlib.suppress(HTTPError):  # the cluster's end
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
    ours, theirs = [], []
    for number in range(count):
        name, started = f"one-{number}", time.monotonic()
        runs.submit(name)
        until(lambda: {"job", "0", "1"} <= set(seen.times[name]), "its pods are there", every_s=0.02)
        times = seen.times[name]
        ours.append(times["job"] - started - (times["resolved"] - times["resolver"]))
        theirs.append(max(times["0"], times["1"]) - times["job"])
        runs.plane.call(f"{runs.path}/{name}", "DELETE")
        until(lambda: not runs.pods(name), "its pods are gone")  # whose removal would slow the next one down
        time.sleep(0.5)
    medians = statistics.median(ours), statistics.median(theirs)
    print(f"one by one, {count} runs: operator {_ms(ours)}, training operator {_ms(theirs)}, ratio {medians[0] / medians[1]:.2f}")


def at_once(runs: Runs, operator: Operator, count: int) -> None:
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
        items = runs.plane.call(runs.path)["items"]
        done = sum(i.get("status", {}).get("phase") == "Succeeded" for i in items if i["metadata"]["name"].startswith("many"))
        time.sleep(1)
    took = time.monotonic() - started
    asked = runs.plane.requests(account)[before:]
    verbs = defaultdict(int)
    for request in asked:
        verbs[f"{request['verb']} {request['objectRef']['resource']}/{request['objectRef'].get('subresource', '')}".rstrip("/")] += 1
    print(f"at once, {count} runs: submitted in {submitted:.1f} s, all succeeded after {took:.1f} s; peak {peak / 2**20:.0f} MiB")
    print(f"requests: {len(asked) / count:.1f} a run, {len(asked) / count / 6:.1f} a transition; cpu {sum(process.cpu_times()[:2]):.0f} s")
    for verb, n in sorted(verbs.items(), key=lambda item: -item[1]):
        print(f"  {n / count:6.2f} a run  {verb}")


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
