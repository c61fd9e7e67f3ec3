"""What the operator needs of a kind of training job."""

from abc import ABC, abstractmethod
from typing import ClassVar

from capsfusion_k8s.objects.merge import differences
from capsfusion_k8s.objects.meta import condition, has
from capsfusion_k8s.run import Object, Run


class Backend(ABC):
    """A kind of training job, which a controller of Kubeflow runs: one object an attempt."""

    name: ClassVar[str]  # in spec.backend and status.backend
    kind: ClassVar[str]
    api_version: ClassVar[str]
    plural: ClassVar[str]
    install: ClassVar[str]  # what a cluster without the kind lacks
    success: ClassVar[str]  # type of the condition that is true in the end
    rank_label: ClassVar[str]  # of pods: their number in the gang
    pods_of: ClassVar[str | None] = None  # suffix of the Job that makes the pods, if the training job does not itself

    @abstractmethod
    def build(self, run: Run, attempt: int, *, suspend: bool) -> list[Object]:
        """Return the objects of an attempt: what the job refers to, then the job."""

    @abstractmethod
    def is_suspended(self, job: Object) -> bool:
        """Return whether the job's specification suspends it."""

    @abstractmethod
    def is_running(self, job: Object) -> bool:
        """Return whether a pod of the job runs, and the job is not suspended."""

    def succeeded(self, job: Object) -> bool:
        """Return whether the job has succeeded."""
        return has(job, self.success)

    def failed(self, job: Object) -> bool:
        """Return whether the job has failed."""
        return has(job, "Failed")

    def failed_at(self, job: Object) -> str | None:
        """Return when the job failed."""
        return condition(job, "Failed").get("lastTransitionTime")

    def ended(self, job: Object) -> bool:
        """Return whether the job has succeeded or failed."""
        return self.succeeded(job) or self.failed(job)

    def edits(self, run: Run, job: Object) -> list[str]:
        """Return what others have changed in the job's specification. Pausing it is a right of queues."""
        [*_, wanted] = self.build(run, run.attempt, suspend=self.is_suspended(job))
        return differences(wanted["spec"], job["spec"])
