"""problems(object) → what a server refuses that no schema says: names, labels, sizes, selectors, what is immutable."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.fakes.kubernetes.refusal import Object

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]|")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
# Kinds whose name is a part of a host name, with how long it may be; others have 253.
_SHORT = {"Namespace": 63, "Service": 63, "Pod": 253}
_DATA_BYTES = 1024**2
_ANNOTATIONS_BYTES = 256 * 1024
_IMMUTABLE = {
    "Deployment": ("spec.selector",),
    "StatefulSet": ("spec.selector", "spec.serviceName", "spec.volumeClaimTemplates"),
    "Job": ("spec.selector", "spec.template", "spec.completions"),
    "Service": ("spec.clusterIP",),
    "Secret": ("type",),
    "RoleBinding": ("roleRef",),
    "PersistentVolumeClaim": ("spec.storageClassName", "spec.volumeName"),
}


def problems(new: Object, old: Object | None) -> list[str]:
    """Each with its path; `old` is what the object is now."""
    return [*_named(new), *_sized(new), *_selecting(new), *(_changed(new, old) if old else ())]


def _named(body: Object) -> Iterator[str]:
    meta, kind = body["metadata"], body["kind"]
    longest = _SHORT.get(kind, 253)
    if not _NAME.fullmatch(meta["name"]) and not kind.endswith(("Role", "RoleBinding")):
        why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
        yield f'metadata.name: Invalid value: "{meta["name"]}": {why}'
    if len(meta["name"]) > longest:
        yield f'metadata.name: Invalid value: "{meta["name"]}": must be no more than {longest} characters'
    template = (body.get("spec") or {}).get("template") or {}
    for path, labels in (("metadata.labels", meta.get("labels")), ("spec.template.labels", _labels(template))):
        for key, value in (labels or {}).items():
            if len(value) > 63:
                yield f'{path}: Invalid value: "{value}": must be no more than 63 characters'
            elif not _LABEL.fullmatch(value):
                yield f"{path}: Invalid value: \"{value}\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"  # noqa: E501
            if not _KEY.fullmatch(key) or len(key.rpartition("/")[2]) > 63:
                yield f"{path}: Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.'"  # noqa: E501


def _sized(body: Object) -> Iterator[str]:
    if body["kind"] in ("ConfigMap", "Secret"):
        size_bytes = sum(
            len(str(value).encode()) for part in ("data", "binaryData") for value in (body.get(part) or {}).values()
        )
        if size_bytes > _DATA_BYTES:
            yield f"data: Too long: may not be more than {_DATA_BYTES} bytes"
    if len(json.dumps(body["metadata"].get("annotations") or {}).encode()) > _ANNOTATIONS_BYTES:
        yield f"metadata.annotations: Too long: may not be more than {_ANNOTATIONS_BYTES} bytes"


def _selecting(body: Object) -> Iterator[str]:
    if body["kind"] in ("Deployment", "StatefulSet"):
        wanted = (body["spec"].get("selector") or {}).get("matchLabels") or {}
        has = _labels(body["spec"].get("template") or {})
        if any(has.get(key) != value for key, value in wanted.items()):
            said = json.dumps(has, separators=(",", ":"))
            yield f"spec.template.metadata.labels: Invalid value: {said}: `selector` does not match template `labels`"


def _changed(new: Object, old: Object) -> Iterator[str]:
    for path in _IMMUTABLE.get(new["kind"], ()):
        if _at(old, path) != _at(new, path):
            yield f"{path}: Invalid value: field is immutable"
    if new["kind"] in ("ConfigMap", "Secret") and old.get("immutable"):
        for part in ("data", "binaryData", "immutable"):
            if old.get(part) != new.get(part):
                yield f"{part}: Forbidden: field is immutable when `immutable` is set"


def _labels(template: Object) -> dict[str, str]:
    return (template.get("metadata") or {}).get("labels") or {}


def _at(body: Any, path: str) -> Any:
    for part in path.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body
