"""Compare the latency of our operator with that of Kubeflow's controllers, on one API server with fake nodes.

    sudo python benchmarks/training_operator.py [--backend trainjob] [--one-by-one 20] [--at-once 200] [--finished 8000]

`operator`: from the creation of a run to its training job, without the time of the resolve Job (from its creation to
the end of its pod). `controller`: from the training job to the last of its two pods, by the training operator (v1) or
by Trainer, JobSet and the Job controller (v2). A watch takes both times. `finished`: memory with so many finished pods.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cluster"))
from capsfusion_k8s.backends import BACKENDS, Backend
from capsfusion_k8s.objects.meta import ATTEMPT, labels
from capsfusion_k8s.objects.pods import pod_metadata, training_pod
from capsfusion_k8s.run import Run
from conftest import Operator, installed
from controllers import crds, trainer, training_operator
from kubernetes import client, watch
from plane import CRD, Plane, until
from prerequisites import programs
from runs import Runs
from urllib3.exceptions import HTTPError

MERGE = "application/merge-patch+json"


class Seen:
    """Times at which watches saw the resolve Job, the training job and the pods of each run."""

    def __init__(self, plane: Plane, namespace: str, backend: Backend) -> None:
        self._rank = backend.rank_label
        self.times: dict[str, dict[str, float]] = defaultdict(dict)
        custom, batch, core = (
            kind(plane.api) for kind in (client.CustomObjectsApi, client.BatchV1Api, client.CoreV1Api)
        )
        for listing, arguments, note in (
            (
                custom.list_namespaced_custom_object,
                (*backend.api_version.split("/"), namespace, backend.plural),
                self._job,
            ),
            (batch.list_namespaced_job, (namespace,), self._resolver),
            (core.list_namespaced_pod, (namespace,), self._pod),
        ):
            threading.Thread(target=self._watch, args=(listing, arguments, note), daemon=True).start()

    def _watch(self, listing: Any, arguments: Any, note: Any) -> None:
        with contextlib.suppress(HTTPError):  # the cluster has stopped
            for event in watch.Watch().stream(listing, *arguments):
                found = event["raw_object"]
                run = found["metadata"]["labels"].get("capsfusion.io/run")
                if run is not None:
                    note(run, found, time.monotonic())

    def _job(self, run: str, found: Any, now: float) -> None:
        self.times[run].setdefault("job", now)

    def _resolver(self, run: str, found: Any, now: float) -> None:
        self.times[run].setdefault("resolver", now)

    def _pod(self, run: str, found: Any, now: float) -> None:
        if found["metadata"]["labels"]["capsfusion.io/role"] == "trainer":
            self.times[run].setdefault(found["metadata"]["labels"][self._rank], now)
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
    print(f"one by one, {count} runs: operator {_ms(ours)}, controller {_ms(theirs)}, ratio {ratio:.2f}")


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
        f"peak {peak / 2**20:.0f} MiB, cpu {cpu:.0f} s; requests: {len(asked) / count:.1f} per run of six transitions"
    )
    for words, n in Counter(map(_words, asked)).most_common():
        print(f"  {n / count:6.2f} per run  {words}")


def finished(plane: Plane, folder: Path, pods: int, each: int = 8) -> None:
    """Print the memory of an operator that starts beside finished runs with so many pods."""
    runs, full = installed(plane, folder / "finished.log")
    template = training_pod(Run(_run("done-0")), ["python", "-m", "capsfusion_trainer.launch"])

    def one(number: int) -> None:
        name = f"done-{number // each}"
        if number % each == 0:
            plane.call(runs.path, "POST", _run(name))
            plane.call(f"{runs.path}/{name}/status", "PATCH", {"status": {"phase": "Succeeded"}}, MERGE)
        metadata = pod_metadata(Run(_run(name)), labels(Run(_run(name)), "trainer") | {ATTEMPT: "1"}, trains=True)
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata | {"name": f"{name}-1-worker-{number % each}"},
        }
        path = f"/api/v1/namespaces/{runs.namespace}/pods"
        plane.call(path, "POST", pod | {"spec": template | {"schedulerName": "nobody"}})
        ended = {"exitCode": 0, "finishedAt": "2026-11-29T00:00:00Z", "message": "x" * 2048}
        about = {"name": "pytorch", "image": "i", "imageID": "sha256:" + "0" * 64, "ready": False, "restartCount": 0}
        statuses = [about | {"state": {"terminated": ended}}]
        status = {"phase": "Succeeded", "containerStatuses": statuses}
        plane.call(f"{path}/{pod['metadata']['name']}/status", "PATCH", {"status": status}, MERGE)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(pods)))
    _, idle = installed(plane, folder / "idle.log")
    for operator, what in ((idle, "none to follow"), (full, f"{pods} finished pods")):
        operator.start("--metrics-port", "0", "--tick", "15")
        time.sleep(30)
        assert operator.process is not None
        print(f"memory, {what}: {psutil.Process(operator.process.pid).memory_info().rss / 2**20:.0f} MiB")
        operator.end()


def _run(name: str) -> dict[str, Any]:
    spec = {
        "dataset": {"uri": "/lake", "snapshot": "july"}, "checkpoint": {"uri": "/checkpoints"},
        "trainer": {"image": "example.org/trainer:1", "recipe": "micro_cpu", "nodes": 8},
    }  # fmt: skip
    return {
        "apiVersion": "capsfusion.io/v1alpha1", "kind": "CaptionTrainingRun", "metadata": {"name": name, "uid": "u"},
        "spec": spec,
    }  # fmt: skip


def _words(request: dict[str, Any]) -> str:
    about = request.get("objectRef", {"resource": "discovery"})
    return "/".join(filter(None, [f"{request['verb']} {about['resource']}", about.get("subresource")]))


def _ms(values: list[float]) -> str:
    low, middle, high = (sorted(values)[int(q * (len(values) - 1))] for q in (0.1, 0.5, 0.9))
    return f"{1000 * middle:.0f} ms ({1000 * low:.0f} to {1000 * high:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=sorted(BACKENDS), default="pytorchjob")
    parser.add_argument("--one-by-one", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--finished", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plane, operator = Plane(programs(), Path(folder)), None
        try:
            plane.control_plane(CRD, *crds(plane.programs))
            training_operator(plane)
            trainer(plane)
            plane.fake_nodes()
            if chosen.finished:
                finished(plane, Path(folder), chosen.finished)
                return
            runs, operator = installed(plane, Path(folder) / "operator.log", backend=chosen.backend)
            operator.start("--metrics-port", "0", "--tick", "15")
            seen = Seen(plane, runs.namespace, runs.backend)
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
