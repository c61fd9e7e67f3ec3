"""Test the holds of snapshots that training runs ask for."""

from typing import TYPE_CHECKING, Any

import pytest
from waiting import until

if TYPE_CHECKING:
    from runs import Runs

pytestmark = pytest.mark.cluster


def test_a_snapshot_is_held_as_long_as_it_is_wanted(runs: "Runs") -> None:
    def shorts() -> dict[str, Any]:
        path = f"/apis/batch/v1/namespaces/{runs.namespace}/jobs"
        return {job["metadata"]["name"]: job for job in runs.plane.call(path)["items"]}

    runs.submit("kept", retention={"holdSnapshot": True})
    until(lambda: runs.condition("kept", "RetentionHeld").get("status") == "True", "it is held")
    [container] = shorts()["kept-hold-1"]["spec"]["template"]["spec"]["containers"]
    uid = runs.get("kept")["metadata"]["uid"][:8]
    holder = f"{runs.namespace}.kept.{uid}"
    assert container["command"] == ["capsfusion", "pin", "--snapshot", "/lake@july", "--hold", holder, "--days", "30"]
    runs.patch("kept", retention={"holdSnapshot": True, "until": "2026-01-01T00:00:00Z"})
    until(lambda: runs.condition("kept", "RetentionHeld").get("reason") == "Released", "its time is over")
    assert "kept-release-2" in shorts()
    runs.patch("kept", retention={"until": None})
    until(lambda: runs.condition("kept", "RetentionHeld").get("status") == "True", "it is held again")
    runs.plane.call(f"{runs.path}/kept", "DELETE")
    until(lambda: "kept-release-3" in shorts(), "it is released in the end")
    assert "ownerReferences" not in shorts()["kept-release-3"]["metadata"]
