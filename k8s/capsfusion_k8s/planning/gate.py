"""Check the gate result of a snapshot against the qualityGate of a run."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from capsfusion_k8s.run import Object, duration, parsed


@dataclass(frozen=True, slots=True)
class Gated:
    """Outcome of the check, with a reason for programs and a message for people."""

    passed: bool
    reason: str
    message: str


def judge(wanted: Object, gate: object, now: datetime) -> Gated:
    """Check a gate result.

    Args:
        wanted: spec.qualityGate of the run.
        gate: The gate result in the snapshot's manifest; may be malformed.
        now: For `maxAge`.
    """
    if not wanted.get("required", True):
        return Gated(True, "GateNotRequired", "the run requires no quality gate")
    try:
        return _judged(wanted, gate, now)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return Gated(False, "GateResultInvalid", f"the snapshot's gate result is invalid: {str(gate)[:200]}")


def _judged(wanted: Object, gate: Any, now: datetime) -> Gated:
    if not isinstance(gate, dict) or "result" not in gate:
        return Gated(False, "GateResultInvalid", f"the snapshot's gate result is invalid: {str(gate)[:200]}")
    suite, suites = wanted.get("suite"), gate.get("suites") or {}
    if suite is not None and suite not in suites:
        there = ", ".join(sorted(suites)) or "none"
        return Gated(False, "GateSuiteMissing", f"the gate did not run suite {suite}; it ran: {there}")
    if suite is not None and not suites[suite]:
        return Gated(False, "GateFailed", f"suite {suite} of the quality gate did not pass: see its report")
    if suite is None and gate["result"] != "passed":
        why = "; ".join(map(str, gate.get("failures", [])))[:500]
        return Gated(False, "GateFailed", f"the quality gate did not pass: {why or 'see its report'}")
    share, least = gate.get("successPercent", 100), wanted.get("minSuccessPercent")
    if least is not None and float(share) < float(least):
        return Gated(False, "GateBelowMinimum", f"{share} % of the expectations hold, but minSuccessPercent is {least}")
    longest = wanted.get("maxAge")
    if longest is not None:
        try:
            age = now - parsed(str(gate["passedAt"]))
        except (KeyError, ValueError):
            return Gated(False, "GateResultInvalid", "the gate result has no valid passedAt")
        if age > duration(longest):
            return Gated(False, "GateTooOld", f"the gate passed {age.days} days ago: publish again")
    return Gated(True, "GatePassed", f"passed at {gate.get('passedAt', 'an unknown time')}")
