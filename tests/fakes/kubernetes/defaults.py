"""filled(object) → the object with what a server fills in, so that what comes back is more than what was sent.

Of Kubernetes' kinds the commonest defaults, written out below; of custom resources those of their definitions.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from tests.deploy import schema as strict
from tests.fakes.kubernetes import fields
from tests.fakes.kubernetes.refusal import Object
from tests.fakes.kubernetes.resources import Resource
from tests.fakes.kubernetes.state import copied

_ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
_SPECS: Mapping[str, Object] = {
    "Deployment": {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "strategy": _ROLLING},
    "StatefulSet": {"replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady"},
    "Job": {"completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False},
    "Service": {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"},
    "PersistentVolumeClaim": {"volumeMode": "Filesystem"},
}
_POD: Object = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {},
    "schedulerName": "default-scheduler",
}
_CONTAINER: Object = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_PROBE: Object = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}


def filled(resource: Resource, body: Object) -> Object:
    """The object with its defaults; what it says itself stays."""
    new = copied(body)
    if "." in resource.group:
        _fill_by_schema(new, fields.schema_of(resource))
    elif "spec" in new:
        _fill(new["spec"], _SPECS.get(resource.kind, {}))
        if resource.kind == "Service":
            _fill_service(new)
    if resource.kind == "Secret":
        new.setdefault("type", "Opaque")
        for key, text in (new.pop("stringData", None) or {}).items():
            new.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()
    if resource.kind == "Namespace":
        new.setdefault("spec", {"finalizers": ["kubernetes"]})
        new["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = new["metadata"]["name"]
    for spec in _pod_specs(resource, new):
        _fill_pod(spec)
    return new


def _fill(value: Object, defaults: Mapping[str, Any]) -> None:
    for key, default in defaults.items():
        value.setdefault(key, copied(default))


def _pod_specs(resource: Resource, body: Object) -> Iterator[Object]:
    if resource.kind == "Pod" and "spec" in body:
        yield body["spec"]
    elif resource.kind in ("Deployment", "StatefulSet", "Job") and isinstance(body.get("spec"), dict):
        spec = (body["spec"].get("template") or {}).get("spec")
        if isinstance(spec, dict):
            yield spec


def _fill_pod(spec: Object) -> None:
    _fill(spec, _POD)
    if name := spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", name)
    for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
        _fill(container, _CONTAINER)
        tag = str(container.get("image", "")).rpartition("/")[2].partition(":")[2]
        container.setdefault("imagePullPolicy", "Always" if tag in ("", "latest") else "IfNotPresent")
        for port in container.get("ports", ()):
            port.setdefault("protocol", "TCP")
        for name in ("readinessProbe", "livenessProbe", "startupProbe"):
            if probe := container.get(name):
                _fill(probe, _PROBE)
                if "httpGet" in probe:
                    probe["httpGet"].setdefault("scheme", "HTTP")
        for variable in container.get("env", ()):
            if "fieldRef" in (variable.get("valueFrom") or {}):
                variable["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")
    for volume in spec.get("volumes", ()):
        for source in ("configMap", "secret", "projected", "downwardAPI"):
            if isinstance(volume.get(source), dict):
                volume[source].setdefault("defaultMode", 420)


def _fill_service(body: Object) -> None:
    spec = body["spec"]
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    if spec["type"] != "ExternalName":
        # One address for one name: what is applied twice is the same.
        spec.setdefault("clusterIP", f"10.100.0.{1 + sum(body['metadata']['name'].encode()) % 250}")
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")


def _fill_by_schema(value: Any, schema: Mapping[str, Any]) -> None:
    schema = strict.resolve(schema)
    if isinstance(value, list):
        for entry in value:
            _fill_by_schema(entry, schema.get("items", {}))
    elif isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if name not in value and "default" in inner:
                value[name] = copied(inner["default"])
            if name in value and name != "metadata":
                _fill_by_schema(value[name], inner)
        if isinstance(others := schema.get("additionalProperties"), dict):
            for name in set(value) - set(schema.get("properties", {})):
                _fill_by_schema(value[name], others)
