"""Runs from submission to their end, against a real API server, controllers and Kubeflow's training operator."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Operator, Runs

pytestmark = pytest.mark.cluster


def test_to_success(runs: "Runs", operator: "Operator") -> None:
    runs.submit("july", annotations={"test/exit": "0", "test/after": "1s"})
    status = runs.wait("july", "Succeeded")
    assert status["snapshot"]["manifestSha256"] == "ab"
    assert runs.reasons("july") == ["Resolving", "SnapshotResolved", "GatePassed", "Attempt", "Running", "Succeeded"]
