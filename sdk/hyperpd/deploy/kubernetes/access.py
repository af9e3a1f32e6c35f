"""What pods may do: namespaces, accounts, and the rights of containers."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.deploy.kubernetes import storage
from hyperpd.deploy.kubernetes.fleet import Fleet, Object, Room
from hyperpd.deploy.target import Document

FILE = "1-rooms.yaml"
USER = 10001  # of the image
_LEVEL = "pod-security.kubernetes.io/"
_UNVERIFIED = (
    "Unverified: none of these objects has run on a live cluster. They are held to the API's schemas and to a"
    " simulated scheduler only. Custom resources need their controllers: LeaderWorkerSet, KEDA, Prometheus Operator,"
    " Kueue, where such objects are here; NetworkPolicy needs a network plugin that enforces it."
)


def rooms(fleet: Fleet) -> Iterator[Document]:
    """The namespaces, then an account in each."""
    first = _UNVERIFIED + "\n"
    for room in fleet.rooms:
        why = reasons(fleet) if room == "engines" else []
        level = "privileged" if why else "restricted"
        if room == "engines" and fleet.options.llm_d and not why:
            level, why = "baseline", ["llm-d's chart leaves the rights of its endpoint picker unsaid"]
        said = f"Pod security is {level}" + (f": {'; '.join(why)}." if why else ".")
        alone = (
            "This namespace is hyperpd's alone: policies close all that this recipe does not need, of any pod in it."
        )
        labels = fleet.labels() | {_LEVEL + mode: level for mode in ("enforce", "audit", "warn")}
        meta = {"name": fleet.namespace(room), "labels": labels, "annotations": {"hyperpd.io/pod-security": said}}
        yield Document(FILE, f"{first}{alone} {said}", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        first = ""
    for room in fleet.rooms:
        why_none = "No rights and no token: workers are found by DNS, nothing asks the API server."
        if room == "engines" and fleet.recipe.model.s3:
            why_none += " To read from S3 it needs an EKS pod identity association, made outside (unverified)."
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": fleet.meta(room, room),
            "automountServiceAccountToken": False,
        }
        yield Document(FILE, why_none, account)


def reasons(fleet: Fleet) -> list[str]:
    """Why the engines' pods need more than the level "restricted" allows; "baseline" has none of it either."""
    found = []
    if fleet.options.privileged:
        found.append("the option privileged")
    elif locks_memory(fleet):
        found.append("IPC_LOCK, to register memory with the fabric")
    if folders := storage.machine_folders(fleet):
        found.append(f"folders of the machine ({', '.join(folders)})")
    return found


def locks_memory(fleet: Fleet) -> bool:
    """Whether a fabric registers memory of the engines: EFA does; CUDA IPC and TCP do not."""
    return any(fleet.efa(role) for role in fleet.recipe.roles())


def pod_security(fleet: Fleet, room: Room) -> Object:
    root = room == "engines" and fleet.options.privileged
    user = 0 if root else USER
    return {
        "runAsNonRoot": not root,
        "runAsUser": user,
        "runAsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(fleet: Fleet, room: Room) -> tuple[Object, str]:
    """A container's securityContext and a note on it."""
    if room == "engines" and fleet.options.privileged:
        return {"privileged": True, "readOnlyRootFilesystem": True}, "By the option privileged."
    security: Object = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    if room == "gateway" or not locks_memory(fleet):
        return security, ""
    security["capabilities"]["add"] = ["IPC_LOCK"]
    return security, (
        "IPC_LOCK: the fabric locks memory. A user other than root does not get it from every runtime; what counts"
        " then is LimitMEMLOCK of containerd, which the lifecycle scripts set. The start fails with the reason if"
        " neither helps."
    )
