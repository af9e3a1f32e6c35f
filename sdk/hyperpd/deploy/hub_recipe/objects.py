"""The documents of the target kubernetes as objects that hyp can post: Deployments as LeaderWorkerSets of one pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hyperpd.deploy import kubernetes
from hyperpd.deploy.hub_recipe import hyp
from hyperpd.deploy.target import Document
from hyperpd.recipe import RecipeFile

Object = dict[str, Any]

_POD_GROUP = (
    "kueue.x-k8s.io/pod-group-name",
    "kueue.x-k8s.io/pod-group-total-count",
    "kueue.x-k8s.io/pod-group-serving",
)
_SET = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet"}
_TEMPLATE = "spec.leaderWorkerTemplate.workerTemplate"
_WHY = (
    f"hyp {hyp.VERSION} posts objects of apps/v1 to a path that no server has, so this is a LeaderWorkerSet of groups"
    " of one pod, and not a Deployment."
)


def documents(file: RecipeFile, options: kubernetes.Options) -> tuple[list[Document], list[Document]]:
    """(what has to be there before, what hyp posts), each in the order in which it is applied."""
    before: list[Document] = []
    posted: list[Document] = []
    for document in kubernetes.documents(file, options):
        converted = _converted(document)
        (posted if hyp.postable(_body(converted)) else before).append(converted)
    return before, posted


def _body(document: Document) -> Mapping[str, Any]:
    assert not isinstance(document.body, str)  # the target kubernetes writes objects alone
    return document.body


def _converted(document: Document) -> Document:
    match _body(document)["kind"]:
        case "Deployment":
            return _group(document)
        case "ScaledObject":
            return _scaler(document)
    return document


def _group(document: Document) -> Document:
    deployment = _body(document)
    name, spec = _name(deployment["metadata"]["name"]), deployment["spec"]
    rolling = spec["strategy"].get("rollingUpdate", {"maxSurge": 0, "maxUnavailable": 1})
    body = {
        **_SET,
        "metadata": {**deployment["metadata"], "name": name},
        "spec": {
            "replicas": spec["replicas"],
            "rolloutStrategy": {"type": "RollingUpdate", "rollingUpdateConfiguration": dict(rolling)},
            "leaderWorkerTemplate": {"size": 1, "restartPolicy": "None", "workerTemplate": _pod(spec["template"])},
        },
    }
    notes = {
        path.replace("spec.template", _TEMPLATE, 1): note
        for path, note in (document.notes or {}).items()
        if path not in ("spec.progressDeadlineSeconds", "spec.strategy")
    }
    notes["metadata.name"] = "Its controller makes a Service of its own name, so that it cannot have the role's."
    notes["spec.leaderWorkerTemplate.restartPolicy"] = "A container that ends is started again in its pod."
    if spec["strategy"]["type"] == "RollingUpdate" and not rolling["maxSurge"]:
        notes["spec.rolloutStrategy"] = "One after the other: there are no machines for two of a worker."
    comment, _, _ = document.comment.partition(" Kueue admits")
    return replace(document, comment=f"{comment} {_WHY}", body=body, notes=notes)


def _pod(template: Mapping[str, Any]) -> Object:
    """A pod's template without Kueue's pod group, which cannot hold a LeaderWorkerSet's groups."""
    meta = {
        part: {key: value for key, value in values.items() if key not in _POD_GROUP}
        for part, values in template["metadata"].items()
    }
    return {"metadata": meta, "spec": template["spec"]}


def _scaler(document: Document) -> Document:
    body = _body(document)
    target = body["spec"]["scaleTargetRef"]
    if target["kind"] != "Deployment":
        return document
    spec = {**body["spec"], "scaleTargetRef": {**_SET, "name": _name(target["name"])}}
    return replace(document, body={**body, "spec": spec})


def _name(deployment: str) -> str:
    return f"{deployment}-groups"
