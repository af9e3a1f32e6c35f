"""Parts of a deployment, its roles and its gateway: how many are wanted and how many are ready; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hyperpd.deploy.difference import Ref

Object = Mapping[str, Any]

WORKLOADS = ("Deployment", "LeaderWorkerSet", "InferenceEndpointConfig")
_COMPONENT = "app.kubernetes.io/component"


@dataclass(frozen=True, slots=True)
class Part:
    """One workload as it is now.

    ready, current: how many of the newest specification are ready, and are there. state: what more
    there is to know of it: older pods, what its controller says.
    """

    ref: Ref
    role: str
    wanted: int
    ready: int
    current: int
    seen: bool  # whether its controller has looked at the newest specification
    state: str = ""
    failed: bool = False

    @property
    def good(self) -> bool:
        return self.seen and not self.failed and self.ready >= self.wanted and self.current >= self.wanted

    def __str__(self) -> str:
        said = f" ({self.state})" if self.state else ""
        return f"{self.role} {self.ready}/{self.wanted} ready{said}"


def part(at: Ref, body: Object | None) -> Part:
    """What a workload's status says; None: it is not there."""
    if body is None:
        return Part(at, at.name, 1, 0, 0, seen=False, state="is not there")
    status = body.get("status") or {}
    role = str((body["metadata"].get("labels") or {}).get(_COMPONENT, at.name))
    if at.kind == "InferenceEndpointConfig":
        return _endpoint(at, body, status)
    wanted = int(body["spec"].get("replicas", 1))
    seen = _observed(body, status)
    ready = status.get("availableReplicas" if at.kind == "Deployment" else "readyReplicas", 0)
    updated = int(status.get("updatedReplicas", 0))
    # What serves meanwhile is older: the newest may never start. Nobody counts it apart, so all older ones are taken
    # for ready.
    old = max(0, int(status.get("replicas", updated)) - updated)
    older = f"{old} of an older revision" if old and seen else ""
    stalled = next((c for c in status.get("conditions") or () if c.get("reason") == "ProgressDeadlineExceeded"), None)
    return Part(
        at,
        role,
        wanted,
        max(0, min(updated, int(ready) - old)),
        updated,
        seen=bool(status) and seen,
        state="; ".join(filter(None, (older, str((stalled or {}).get("message", ""))))),
    )


def _observed(body: Object, status: Mapping[str, Any]) -> bool:
    """Whether a status is of the newest specification. LeaderWorkerSet has no observedGeneration; its updatedReplicas
    say as much."""
    generation = int(body["metadata"].get("generation", 0))
    return int(status.get("observedGeneration", generation)) >= generation


def _endpoint(at: Ref, body: Object, status: Mapping[str, Any]) -> Part:
    """The operator counts no workers in its status that are documented: its state decides."""
    state = str(status.get("state", ""))
    registered = ((status.get("endpoints") or {}).get("sagemaker") or {}).get("state")
    done = state == "DeploymentComplete"
    conditions = [str(c["message"]) for c in status.get("conditions") or () if c.get("message")]
    said = "; ".join(
        [state or "not seen by the operator yet", *([f"SageMaker endpoint {registered}"] if registered else [])]
    )
    failed = state == "DeploymentFailed"
    return Part(
        at,
        "endpoint",
        wanted=1,
        ready=int(done),
        current=1,
        seen=bool(state) and _observed(body, status),
        state=f"{said}: {conditions[-1]}" if failed and conditions else said,
        failed=failed,
    )
