"""matches(query, object) → whether a label and a field selector of a request take an object."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.kubernetes.refusal import Object, bad

# What field selectors a server knows of a kind, beside metadata.name and metadata.namespace.
_FIELDS = {
    "Pod": ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase",
            "status.podIP"),
    "Event": ("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
              "reason", "type", "source", "reportingComponent"),
    "Node": ("spec.unschedulable",),
    "Secret": ("type",),
    "Job": ("status.successful",),
    "Namespace": ("status.phase",),
}  # fmt: skip
_SET = re.compile(r"(?P<key>\S+)\s+(?P<not>not)?in\s+\((?P<values>[^()]*)\)|(?P<no>!)?(?P<bare>[^\s=!,]+)")
_EQUAL = re.compile(r"(?P<key>[^\s=!]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^\s=!]*)")


def matcher(query: Mapping[str, str], kind: str) -> Callable[[Object], bool]:
    """Whether an object is taken. Raises Refused (400) for a selector that cannot be read or that the kind has not."""
    labels = [_label(each) for each in _split(query.get("labelSelector", ""))]
    fields = [_field(each, kind) for each in _split(query.get("fieldSelector", ""))]

    def taken(body: Object) -> bool:
        return all(one(body["metadata"].get("labels") or {}) for one in labels) and all(one(body) for one in fields)

    return taken


def _split(selector: str) -> list[str]:
    """At the commas that are not inside brackets."""
    return [part.strip() for part in re.split(r",(?![^()]*\))", selector) if part.strip()]


def _label(text: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _EQUAL.fullmatch(text):
        key, value, equal = found["key"], found["value"], found["operator"] != "!="
        return lambda labels: (labels.get(key) == value) == equal
    if not (found := _SET.fullmatch(text)):
        raise bad(f"unable to parse requirement: {text}")
    if found["bare"]:
        key, present = found["bare"], not found["no"]
        return lambda labels: (key in labels) == present
    key, inside = found["key"], not found["not"]
    values = {value.strip() for value in found["values"].split(",")}
    return lambda labels: (labels.get(key) in values) == inside


def _field(text: str, kind: str) -> Callable[[Object], bool]:
    found = _EQUAL.fullmatch(text)
    if not found:
        raise bad(f"invalid selector: {text}; can't understand it")
    key, value, equal = found["key"], found["value"], found["operator"] != "!="
    if key not in ("metadata.name", "metadata.namespace", *_FIELDS.get(kind, ())):
        raise bad(f"field label not supported: {key}")
    return lambda body: (_text(_at(body, key)) == value) == equal


def _at(body: Any, path: str) -> Any:
    for part in path.split("."):
        body = body.get(part) if isinstance(body, Mapping) else None
    return body


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
