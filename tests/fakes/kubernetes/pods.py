"""What becomes of a pod, as kubelets and the scheduler tell it: status, events and the last log lines.

Each class is a state that a test gives to pods by their labels (Controllers.script).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.fakes.kubernetes.refusal import Object
from tests.fakes.kubernetes.state import now

Told = tuple[str, str, str]  # type, reason, message of an event


@dataclass(frozen=True, slots=True)
class Ready:
    """It runs and answers."""

    lines: Sequence[str] = ()

    def status(self, pod: Object) -> Object:
        return _running(pod, ready=True)

    def events(self, pod: Object) -> Iterator[Told]:
        yield "Normal", "Started", f"Started container {_first(pod)}"


@dataclass(frozen=True, slots=True)
class Starting:
    """It runs and is not ready yet, as a worker that loads its model; unready: what its readiness probe is told."""

    unready: str = ""
    lines: Sequence[str] = ()

    def status(self, pod: Object) -> Object:
        return _running(pod, ready=False)

    def events(self, pod: Object) -> Iterator[Told]:
        yield "Normal", "Started", f"Started container {_first(pod)}"
        if self.unready:
            yield "Warning", "Unhealthy", f"Readiness probe failed: {self.unready}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A container does not start: ImagePullBackOff, CreateContainerConfigError … event: the reason of its event."""

    reason: str
    message: str
    event: str = "Failed"
    lines: Sequence[str] = ()

    def status(self, pod: Object) -> Object:
        waiting = {"waiting": {"reason": self.reason, "message": self.message}}
        return _status(pod, "Pending", waiting, ready=False)

    def events(self, pod: Object) -> Iterator[Told]:
        yield "Warning", self.event, self.message


def image_pull_back_off(image: str, why: str = "not found") -> Waiting:
    """An image that is not pulled."""
    message = f'Back-off pulling image "{image}": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image "{image}": {why}'  # noqa: E501
    return Waiting("ImagePullBackOff", message)


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """No node takes it; message: the scheduler's."""

    message: str
    lines: Sequence[str] = ()

    def status(self, pod: Object) -> Object:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": self.message}
        return {"phase": "Pending", "conditions": [condition], "qosClass": "BestEffort"}

    def events(self, pod: Object) -> Iterator[Told]:
        yield "Warning", "FailedScheduling", self.message


@dataclass(frozen=True, slots=True)
class CrashLooping:
    """It ends again and again; lines: the log of the run before, and of the present."""

    exit_code: int = 1
    reason: str = "Error"
    restarts: int = 3
    lines: Sequence[str] = ()

    def status(self, pod: Object) -> Object:
        message = f"back-off 40s restarting failed container={_first(pod)} pod={pod['metadata']['name']}"
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        ended = {"exitCode": self.exit_code, "reason": self.reason, "startedAt": now(), "finishedAt": now()}
        status = _status(pod, "Running", waiting, ready=False, restarts=self.restarts)
        for each in status["containerStatuses"]:
            each["lastState"] = {"terminated": ended}
        return status

    def events(self, pod: Object) -> Iterator[Told]:
        yield (
            "Warning",
            "BackOff",
            f"Back-off restarting failed container {_first(pod)} in pod {pod['metadata']['name']}",
        )


@dataclass(frozen=True, slots=True)
class Evicted:
    """Its node has sent it away."""

    message: str = "The node was low on resource: ephemeral-storage."
    lines: Sequence[str] = ()

    def status(self, pod: Object) -> Object:
        return {"phase": "Failed", "reason": "Evicted", "message": self.message}

    def events(self, pod: Object) -> Iterator[Told]:
        yield "Warning", "Evicted", self.message


@dataclass(frozen=True, slots=True)
class Ended:
    """It has come to its end, as a Job's pod."""

    exit_code: int = 0
    lines: Sequence[str] = ()

    def status(self, pod: Object) -> Object:
        reason = "Error" if self.exit_code else "Completed"
        ended = {"terminated": {"exitCode": self.exit_code, "reason": reason, "startedAt": now(), "finishedAt": now()}}
        return _status(pod, "Failed" if self.exit_code else "Succeeded", ended, ready=False)

    def events(self, pod: Object) -> Iterator[Told]:
        yield "Normal", "Started", f"Started container {_first(pod)}"


PodState = Ready | Starting | Waiting | Unschedulable | CrashLooping | Evicted | Ended


def ready(pod: Object) -> bool:
    """Whether a pod counts as healthy."""
    conditions = pod.get("status", {}).get("conditions", ())
    return not pod["metadata"].get("deletionTimestamp") and any(
        each["type"] == "Ready" and each["status"] == "True" for each in conditions
    )


def _first(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["name"])


def _running(pod: Object, *, ready: bool) -> Object:
    return _status(pod, "Running", {"running": {"startedAt": now()}}, ready=ready)


def _status(pod: Object, phase: str, state: Object, *, ready: bool, restarts: int = 0) -> Object:
    said = "True" if ready else "False"
    why = (
        {} if ready else {"reason": "ContainersNotReady", "message": f"containers with unready status: [{_first(pod)}]"}
    )
    containers = [
        {
            "name": each["name"],
            "image": each["image"],
            "imageID": "",
            "ready": ready,
            "started": "running" in state,
            "restartCount": restarts,
            "state": state,
        }
        for each in pod["spec"]["containers"]
    ]
    return {
        "phase": phase,
        "podIP": "10.0.0.1",
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Initialized", "status": "True"},
            {"type": "ContainersReady", "status": said, **why},
            {"type": "Ready", "status": said, **why},
        ],
        "containerStatuses": containers,
    }
