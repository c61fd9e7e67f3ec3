"""Restore a job that was changed by hand, and leave alone one that a webhook rewrites."""

from datetime import datetime, timedelta

from capsfusion_k8s.backends import backend_of
from capsfusion_k8s.objects.meta import condition
from capsfusion_k8s.planning.actions import Action, MakeJob
from capsfusion_k8s.planning.status import to
from capsfusion_k8s.run import Object, Run, parsed

AS_MADE = "JobAsMade"
LATELY = timedelta(minutes=10)  # since a job was restored: who changes it again will go on doing so


def edited(run: Run, job: Object, now: datetime) -> list[Action]:
    """Return the actions for a job whose specification differs from the one that the operator makes."""
    backend, name = backend_of(run), run.child(run.attempt)
    found, known = backend.edits(run, job), condition(run.object, AS_MADE)
    if not found:
        restored = f"{backend.kind} {name} is as it was made"
        return [to(run, run.phase, "JobAsMade", restored, {AS_MADE: "True"})] if known.get("status") == "False" else []
    where = "; ".join(found[:3])
    since = known.get("lastTransitionTime")
    lately = known.get("status") == "True" and since is not None and now - parsed(since) < LATELY
    if known.get("status") != "False" and not lately:
        said = f"{backend.kind} {name} is not as the operator makes it, and is restored: {where}"
        restore = MakeJob(run.attempt, suspend=backend.is_suspended(job))
        return [restore, to(run, run.phase, "JobEdited", said, {AS_MADE: "False"}, warning=True)]
    if lately or known.get("reason") == "JobEdited":
        said = (
            f"{backend.kind} {name} was changed again after it was restored, as by a webhook, and is left so: {where}"
        )
        return [to(run, run.phase, "JobRewritten", said, {AS_MADE: "False"}, warning=True)]
    return []
