"""Tests of the progress that pods say in their logs, and of who is asked for it."""

import asyncio
from typing import Any

import pytest
from capsfusion_k8s.cluster import reports
from capsfusion_k8s.cluster.kinds import PODS
from capsfusion_k8s.cluster.progress import Progress
from capsfusion_k8s.cluster.reports import Reports
from capsfusion_k8s.cluster.store import Store
from capsfusion_k8s.objects.meta import ATTEMPT, LABEL, ROLE, UID
from capsfusion_k8s.run import Object, Run
from objects import run

SAID = 'progress {"step": 7, "checkpoint_step": 5, "checkpoint_at": "2026-11-29T00:00:00+00:00"}'


def test_progress_is_the_last_whole_line_that_says_it() -> None:
    counts = '"step": 7, "total": 60, "loss": 2.5, "eta_seconds": 4.0, "checkpoint_step": 5'
    line = f'progress {{{counts}, "updated_at": "2026-11-29T01:02:03+01:00", "activity": "evaluating"}}'
    found = Progress.of_log(f'step 1/60\n{line}\nother\nprogress {{"step": 8, ')
    assert found is not None
    assert found.progress == {
        "step": 7, "total": 60, "loss": 2.5, "etaSeconds": 4.0, "updatedAt": "2026-11-29T00:02:03Z",
        "activity": "evaluating",
    }  # fmt: skip
    assert found.checkpoint_step == 5
    assert Progress.of_log("nothing\nprogress 5\nprogress []\n") is None
    diverged = Progress.of_log('progress {"step": 1, "loss": NaN, "checkpoint_step": null}')
    assert diverged == Progress({"step": 1}, None)  # the API server rejects NaN


@pytest.mark.parametrize(
    "step", ["10.5", "true", "Infinity", "1e400", "1" * 400, "-1", '"7"', "[1]", "null", "{}", "9007199254740993"]
)
def test_odd_numbers_of_a_user_s_program_are_left_out(step: str) -> None:
    found = Progress.of_log(f'progress {{"step": {step}, "checkpoint_step": {step}, "loss": 2, "updated_at": 5}}')
    assert found == Progress({"loss": 2}, None)
    assert Progress.of_log('progress {"step": 7.0, "eta_seconds": 1e400}') == Progress({"step": 7}, None)
    assert Progress.of_log("progress " + "[" * 100_000) is None


@pytest.mark.parametrize("time", ['"yesterday"', '"2026-11-29T00:00:00"', '""', "[]", "1764374400", '"9999999-01-01"'])
def test_times_that_the_api_server_would_refuse_are_left_out(time: str) -> None:
    found = Progress.of_log(f'progress {{"step": 7, "updated_at": {time}, "checkpoint_at": {time}}}')
    assert found == Progress({"step": 7}, None)


class Server:
    """An API server with pods that say something, or nothing; it counts the logs that are read."""

    def __init__(self, words: dict[str, str]) -> None:
        self.words, self.read, self.notes = words, list[str](), list[str]()
        self.status: Object = {}

    def log(self, pod: Object, lines: int, *, times: bool = False) -> str:
        self.read.append(pod["metadata"]["name"])
        return self.words.get(pod["metadata"]["name"], "step 10 loss 2.3")

    def patch_status(self, run: Run, changes: Object, *, as_seen: bool) -> Object:
        self.status |= changes
        return run.object | {"status": run.status | changes}

    def annotate(self, path: str, annotations: dict[str, str]) -> None:
        self.notes.append(f"{path.rpartition('/')[2]} {annotations['volcano.sh/last-checkpoint-time']}")


def gang(server: Any, size: int) -> Reports:
    store = Store()
    for rank in range(size):
        labels = {
            LABEL: "july",
            UID: "u",
            ROLE: "trainer",
            ATTEMPT: "1",
            "training.kubeflow.org/replica-index": str(rank),
        }
        metadata = {"name": f"july-1-worker-{rank}", "namespace": "ml", "uid": str(rank), "labels": labels}
        store.put(PODS, {"metadata": metadata, "status": {"phase": "Running"}})
    return Reports(server, store, tick_s=0)


def test_the_pod_that_speaks_is_found_in_turns_and_asked_alone_from_then_on() -> None:
    server = Server({"july-1-worker-9": SAID})
    found, known = gang(server, 64), run("Running", attempt=1)

    async def ticks() -> None:
        for _ in range(5):
            await found.update(known)

    asyncio.run(ticks())
    assert len(server.read) == 4 + 4 + 2 + 1 + 1
    assert server.status["progress"] == {"step": 7}
    assert server.status["checkpoint"] == {
        "uri": "/checkpoints/july", "step": 5, "complete": True, "time": "2026-11-29T00:00:00Z",
    }  # fmt: skip
    assert server.notes[:2] == [
        "july-1-worker-0 2026-11-29T00:00:00Z",
        "july-1-worker-1 2026-11-29T00:00:00Z",
    ]


def test_a_command_that_says_no_progress_is_not_asked_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "REST", 1000)
    server = Server({})
    found, known = gang(server, 64), run("Running", attempt=1)
    found._tick = 0.001

    async def ticks() -> None:
        for _ in range(40):
            await found.update(known)
            await asyncio.sleep(0.002)

    asyncio.run(ticks())
    assert len(server.read) == 64


def test_who_of_a_silent_gang_spoke_last() -> None:
    times = {f"july-1-worker-{rank}": f"2026-11-29T00:0{rank}:00.123456789Z step 10" for rank in range(3)}
    server = Server(times)
    said = asyncio.run(gang(server, 4).last_heard(run("Running", attempt=1)))
    assert said == (
        "july-1-worker-2 (node 2) was last heard of, at 2026-11-29T00:02:00Z, "
        "july-1-worker-0 (node 0) at 2026-11-29T00:00:00Z"
    )
