"""Pod Security Standards: why a pod fails "baseline" or "restricted" (Kubernetes 1.34, for Linux)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.deploy.objects import Object, Pod, name, namespace

LEVEL = "pod-security.kubernetes.io/enforce"
_HARMLESS = {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"}
_HARMLESS |= {"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def baseline(spec: Object) -> Iterator[str]:
    """What the level "baseline" refuses in a pod's spec."""
    security = spec.get("securityContext", {})
    yield from (key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key))
    yield from (f"volume {volume['name']} is a hostPath" for volume in spec.get("volumes", ()) if "hostPath" in volume)
    yield from (f"sysctl {each['name']}" for each in security.get("sysctls", ()))  # a few are allowed; we set none
    if security.get("seccompProfile", {}).get("type") == "Unconfined":
        yield "seccomp profile Unconfined"
    for container in _containers(spec):
        own = container.get("securityContext", {})
        called = f"container {container['name']}"
        if own.get("privileged"):
            yield f"{called} is privileged"
        for capability in own.get("capabilities", {}).get("add", ()):
            if capability not in _HARMLESS:
                yield f"{called} adds {capability}"
        if own.get("seccompProfile", {}).get("type") == "Unconfined":
            yield f"{called} has the seccomp profile Unconfined"
        if own.get("procMount", "Default") != "Default":
            yield f"{called} has a proc mount of its own"
        yield from (f"{called} takes a port of the node" for port in container.get("ports", ()) if port.get("hostPort"))


def restricted(spec: Object) -> Iterator[str]:
    """What the level "restricted" refuses: all that "baseline" does, and more."""
    yield from baseline(spec)
    security = spec.get("securityContext", {})
    for volume in spec.get("volumes", ()):
        yield from (f"volume {volume['name']} is a {kind}" for kind in volume.keys() - _VOLUMES - {"name", "hostPath"})
    for container in _containers(spec):
        own = container.get("securityContext", {})
        called = f"container {container['name']}"
        capabilities = own.get("capabilities", {})
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{called} allows privilege escalation"
        if own.get("runAsNonRoot", security.get("runAsNonRoot")) is not True:
            yield f"{called} may run as root"
        if own.get("runAsUser", security.get("runAsUser")) == 0:
            yield f"{called} runs as root"
        if own.get("seccompProfile", security.get("seccompProfile", {})).get("type") not in (
            "RuntimeDefault",
            "Localhost",
        ):
            yield f"{called} has no seccomp profile"
        if "ALL" not in capabilities.get("drop", ()):
            yield f"{called} keeps capabilities"
        if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
            yield f"{called} adds capabilities"


def not_admitted(objects: Iterable[Object], pods: Iterable[Pod]) -> Iterator[str]:
    """Pods that their namespace's pod-security level refuses; a namespace that is not rendered admits all."""
    levels = {each["metadata"]["name"]: each for each in objects if each["kind"] == "Namespace"}
    checks = {"privileged": lambda _: iter(()), "baseline": baseline, "restricted": restricted}
    for pod in pods:
        if pod.namespace in levels:
            labels = levels[pod.namespace]["metadata"].get("labels", {})
            level = labels.get(LEVEL, "privileged")
            yield from (f"{pod.name}: {why}, its namespace is {level}" for why in checks[level](pod.spec))


def outside(objects: Iterable[Object]) -> Iterator[str]:
    """Objects in a namespace other than the one that is rendered."""
    objects = list(objects)
    names = {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"}
    cluster = {
        "Namespace",
        "ClusterRole",
        "ClusterRoleBinding",
        "WorkloadPriorityClass",
        "PriorityClass",
        "StorageClass",
    }
    for each in objects:
        if each["kind"] not in cluster and names and namespace(each) not in names:
            yield f"{name(each)} is in namespace {namespace(each)}, not in {', '.join(sorted(names))}"


def _containers(spec: Object) -> Iterator[Object]:
    yield from spec.get("initContainers", ())
    yield from spec["containers"]
