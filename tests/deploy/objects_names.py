"""What Kubernetes demands of texts and amounts, and no schema says: problems(object)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.deploy.objects import Object, quantity, templates

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_WORD = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")  # a label's value, a key's name
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_PORT = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
# Their names become labels or parts of host names.
_SHORT = ("Namespace", "Service", "LeaderWorkerSet")
_WHOLE = ("nvidia.com/", "vpc.amazonaws.com/", "hugepages-")


def problems(body: Object) -> Iterator[str]:
    """Names, labels, ports, variables and amounts that an API server refuses."""
    called = body["metadata"]["name"]
    if body["kind"] in _SHORT and not _LABEL.fullmatch(called):
        yield f"name {called} is no DNS label"
    # A Deployment's name ends up in its pods' host names: 63 with two hashes of 10 and 5.
    if not _SUBDOMAIN.fullmatch(called) or len(called) > (46 if templates(body) else 253):
        yield f"name {called} is no DNS name, or too long"
    for path, labels in _labels(body, "metadata"):
        for key, value in labels.items():
            prefix, _, word = key.rpartition("/")
            if not _WORD.fullmatch(word) or not word or (prefix and not _SUBDOMAIN.fullmatch(prefix)):
                yield f"{path}: {key} is no label"
            if not isinstance(value, str) or not _WORD.fullmatch(value):
                yield f"{path}: {key} has the value {value!r}"
    for template in templates(body):
        spec = template["spec"]
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            yield from (f"container {container['name']}: {problem}" for problem in _container(container))


def _labels(value: Any, path: str) -> Iterator[tuple[str, Object]]:
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _labels(inner, f"{path}.{index}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key in ("labels", "matchLabels", "nodeSelector") and isinstance(inner, dict):
                yield f"{path}.{key}", inner
            else:
                yield from _labels(inner, f"{path}.{key}")


def _container(container: Object) -> Iterator[str]:
    if not _LABEL.fullmatch(container["name"]):
        yield "its name is no DNS label"
    names = [variable["name"] for variable in container.get("env", ())]
    yield from (f"{name} is given twice" for name in sorted({name for name in names if names.count(name) > 1}))
    for variable in container.get("env", ()):
        if not _VARIABLE.fullmatch(variable["name"]):
            yield f"{variable['name']} is no variable"
        if "value" in variable and "valueFrom" in variable:
            yield f"{variable['name']} has two values"
    ports = [port.get("name") for port in container.get("ports", ()) if "name" in port]
    yield from (f"port {port} is no port's name" for port in ports if not _PORT.fullmatch(port))
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        if probe := container.get(kind):
            if len(probe.keys() & {"httpGet", "tcpSocket", "exec", "grpc"}) != 1:
                yield f"{kind} needs one action"
            if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
                yield f"{kind}: successThreshold has to be 1"
            port = probe.get("httpGet", probe.get("tcpSocket", {})).get("port")
            if isinstance(port, str) and port not in ports:
                yield f"{kind}: no port is called {port}"
    limits, asked = (container.get("resources", {}).get(key, {}) for key in ("limits", "requests"))
    for resource, amount in asked.items():
        if resource.startswith(_WHOLE):
            if quantity(limits.get(resource, 0)) != quantity(amount):
                yield f"{resource}: request and limit have to be equal"
        elif resource in limits and quantity(limits[resource]) < quantity(amount):
            yield f"{resource}: the request is above the limit"
    if any(each.startswith("hugepages-") for each in {*limits, *asked}) and not {"cpu", "memory"} & {*limits, *asked}:
        yield "huge pages need a request of cpu or memory"
