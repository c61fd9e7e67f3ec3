"""Does a snapshot's quality gate satisfy what a run asks for?"""

from dataclasses import dataclass
from datetime import datetime

from capsfusion_k8s.run import Object, duration, parsed


@dataclass(frozen=True, slots=True)
class Gated:
    """The answer, with a reason for machines and a message for people."""

    passed: bool
    reason: str
    message: str


def judge(wanted: Object, gate: object, now: datetime) -> Gated:
    """`wanted` is spec.qualityGate, `gate` what the snapshot's manifest says of its gate."""
    if not wanted.get("required", True):
        return Gated(True, "GateNotRequired", "no quality gate is asked for")
    if not isinstance(gate, dict) or "result" not in gate:
        return Gated(False, "GateResultInvalid", f"the snapshot's gate result cannot be read: {str(gate)[:200]}")
    suite, suites = wanted.get("suite"), gate.get("suites") or {}
    if suite is not None and suite not in suites:
        there = ", ".join(sorted(suites)) or "none"
        return Gated(False, "GateSuiteMissing", f"the gate did not ask suite {suite}; it asked: {there}")
    if suite is not None and not suites[suite]:
        return Gated(False, "GateFailed", f"suite {suite} of the quality gate did not pass: see its report")
    if suite is None and gate["result"] != "passed":
        why = "; ".join(map(str, gate.get("failures", [])))[:500]
        return Gated(False, "GateFailed", f"the quality gate did not pass: {why or 'see its report'}")
    share, least = gate.get("successPercent", 100), wanted.get("minSuccessPercent")
    if least is not None and float(share) < float(least):
        return Gated(False, "GateBelowMinimum", f"{share} % of expectations hold, {least} % are wanted")
    longest = wanted.get("maxAge")
    if longest is not None:
        try:
            age = now - parsed(str(gate["passedAt"]))
        except (KeyError, ValueError):
            return Gated(False, "GateResultInvalid", "the gate result does not say when it passed")
        if age > duration(longest):
            return Gated(False, "GateTooOld", f"the gate passed {age.days} days ago: publish again")
    return Gated(True, "GatePassed", f"passed at {gate.get('passedAt', 'an unknown time')}")
