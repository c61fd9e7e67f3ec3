"""In-memory cache of runs and their children, fed by watches and lists. Not thread-safe."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from capsfusion_k8s.backends import backend_of
from capsfusion_k8s.cluster.kinds import PODS, RUNS, SHORT_JOBS, TRAINING, slim
from capsfusion_k8s.objects.meta import LABEL, ROLE, attempt_of
from capsfusion_k8s.run import Object, Run

Key = tuple[str, str]  # namespace and name of a run


class Store:
    """Objects by kind, run and uid. A deleted pod that failed is kept, marked `gone`, until its job is deleted."""

    def __init__(self) -> None:
        self.runs: dict[Key, Object] = {}
        self._children: dict[str, dict[Key, dict[str, Object]]] = {
            kind: defaultdict(dict) for kind in (*TRAINING, SHORT_JOBS, PODS)
        }

    def put(self, kind: str, found: Object) -> Key:
        """Store an object unless the stored one is newer or `gone`; return the key of its run."""
        key, found = key_of(kind, found), slim(kind, found)
        if kind == RUNS:
            if not _older(found, self.runs.get(key)):
                self.runs[key] = found
        elif not _older(found, self._children[kind][key].get(found["metadata"]["uid"])):
            self._children[kind][key][found["metadata"]["uid"]] = found
        return key

    def drop(self, kind: str, found: Object) -> Key:
        """Remove a deleted object; return the key of its run.

        A run takes its children along; a job takes the deleted pods of its attempt along.
        """
        key = key_of(kind, found)
        uid = found["metadata"]["uid"]
        if kind == RUNS:
            if self.runs.get(key, found)["metadata"]["uid"] == uid:
                self.runs.pop(key, None)
                for known in self._children.values():
                    known.pop(key, None)
        elif kind == PODS and _ended(found) and any(self.of(training, key) for training in TRAINING):
            self._children[PODS][key][uid] = slim(PODS, found) | {"gone": True}
        else:
            self._children[kind].get(key, {}).pop(uid, None)
            if kind in TRAINING:  # deleted pods are kept only to explain its failure
                pods = self._children[PODS].get(key, {})
                for pod in [u for u, p in pods.items() if p.get("gone") and attempt_of(p) == attempt_of(found)]:
                    pods.pop(pod)
        return key

    def known(self, kind: str) -> dict[str, Object]:
        """Return the stored objects of a kind by uid."""
        found = list(self.runs.values()) if kind == RUNS else [
            o for objects in self._children[kind].values() for o in objects.values()
        ]  # fmt: skip
        return {o["metadata"]["uid"]: o for o in found}

    def replace(self, kind: str, found: Iterable[Object], before: Iterable[str] | None = None) -> set[Key]:
        """Replace all objects of a kind by a full list; return the keys of the runs that they belong to.

        Stored objects that are not in the list were deleted, even if no watch reported it.

        Args:
            before: uids that were stored when the list was asked for, None: all. Others may be newer than the list.
        """
        listed = list(found)
        uids, known = {item["metadata"]["uid"] for item in listed}, self.known(kind)
        missing = [uid for uid in (known if before is None else before) if uid in known and uid not in uids]
        gone = {self.drop(kind, known[uid]) for uid in missing if not known[uid].get("gone")}
        return gone | {self.put(kind, item) for item in listed}

    def of(self, kind: str, key: Key) -> list[Object]:
        """Return the children of a run of one kind."""
        return list(self._children[kind].get(key, {}).values())

    def run(self, key: Key) -> Run | None:
        """Return a run as last seen, or None."""
        found = self.runs.get(key)
        return Run(found) if found is not None else None

    def job(self, run: Run) -> Object | None:
        """Return the training job of the newest attempt of a run, or None."""
        jobs = self.of(backend_of(run).plural, (run.namespace, run.name))
        return next((job for job in jobs if job["metadata"]["name"] == run.child(run.attempt)), None)

    def resolver(self, key: Key) -> Object | None:
        """Return the Job that resolves the snapshot of a run, or None."""
        jobs = self.of(SHORT_JOBS, key)
        return next((job for job in jobs if job["metadata"]["labels"].get(ROLE) == "resolver"), None)

    def pods(self, key: Key, role: str, attempt: int | None = None) -> list[Object]:
        """Return the pods of a run by role, and by attempt if one is given."""
        return [
            pod
            for pod in self.of(PODS, key)
            if pod["metadata"]["labels"].get(ROLE) == role and attempt in (None, attempt_of(pod))
        ]


def key_of(kind: str, found: Object) -> Key:
    """Return the key of the run that an object belongs to."""
    metadata = found["metadata"]
    return metadata.get("namespace", "default"), metadata["name"] if kind == RUNS else metadata["labels"][LABEL]


def _older(found: Object, known: Object | None) -> bool:
    return known is not None and (_version(found) < _version(known) or bool(known.get("gone")))


def _version(found: Object) -> int:
    text: Any = found["metadata"].get("resourceVersion", "0")
    return int(text) if str(text).isdigit() else 0


def _ended(pod: Object) -> bool:
    status = pod.get("status", {})
    disrupted = any(c["type"] == "DisruptionTarget" for c in status.get("conditions") or [])
    return disrupted or status.get("phase") == "Failed"
