"""The documents of the target kubernetes as objects that hyp can post: Deployments as LeaderWorkerSets of one pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyperpd.deploy import kubernetes
from hyperpd.deploy.hub_recipe import hyp
from hyperpd.deploy.hub_recipe.options import Options
from hyperpd.deploy.kubernetes.fleet import PORTS, Fleet
from hyperpd.deploy.kubernetes.options import ENGINES_SUFFIX
from hyperpd.deploy.target import Document
from hyperpd.recipe import Recipe, RecipeFile

Object = dict[str, Any]

NEEDS = "LeaderWorkerSet's controller"
NAMESPACES = f"Namespace of the gateway; the engines' is <namespace>{ENGINES_SUFFIX}. Both have to be there"
KUBECTLS = "Namespace, ServiceAccount"
_SUFFIX = "-groups"
_APART = "since a pod group cannot hold a LeaderWorkerSet's groups: one may hold machines while the other waits"
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


def problems(recipe: Recipe, options: Options) -> list[str]:
    """What kubernetes refuses, and a machine that is missing, or said twice."""
    found = kubernetes.problems(recipe, options)
    named = _machines(recipe)
    if not named and not options.instance_type:
        role = next(iter(recipe.roles()))
        found.append(f"{role}.instance_type: missing, and hyp init asks for one; give --set instance_type=ml.…")
    if named and options.instance_type:
        found.append(f"instance_type: the recipe names {', '.join(dict.fromkeys(named))}; remove it here")
    return found


def losses(recipe: Recipe, options: Options) -> list[str]:
    """What kubernetes loses, and a pod group."""
    found = kubernetes.losses(recipe, options)
    local = recipe.fabric == "local"
    if options.queue and not recipe.aggregated and not local and not any(one.startswith("queue:") for one in found):
        found.append(f"queue: prefill and decode are admitted apart, {_APART}")
    return found


def documents(file: RecipeFile, options: Options) -> list[Document]:
    return [_converted(document) for document in kubernetes.documents(file, options)]


def image(recipe: Recipe, options: Options) -> str:
    return str(options.image or recipe.image)


def machines(recipe: Recipe, options: Options) -> list[str]:
    return _machines(recipe) or [str(options.instance_type)]


def asking(recipe: Recipe, options: Options) -> list[str]:
    """The gateway has no address outside the cluster."""
    fleet = Fleet(RecipeFile(recipe, Path(), ""), options)
    forward = f"kubectl --namespace {fleet.namespace(fleet.rooms[-1])} port-forward service/gateway"
    key = " --key-file FILE" if recipe.gateway.auth == "keys" else ""
    believed, at = ("SSL_CERT_FILE=ca.crt ", "https://localhost") if options.tls_secret else ("", "http://127.0.0.1")
    return [
        f"{forward} {PORTS.gateway_api} &",
        f"{believed}hyperpd invoke --url {at}:{PORTS.gateway_api}{key} 'Once upon a time'",
    ]


def scaled(recipe: Recipe, options: Options) -> list[str]:
    if recipe.fabric == "local" and not recipe.aggregated:
        return []  # one pod for all
    return [*recipe.roles(), "gateway"]


def counted(body: Mapping[str, Any], counts: Mapping[str, Any]) -> Mapping[str, Any]:
    role = body["metadata"]["name"].removesuffix(_SUFFIX)
    if body["kind"] != "LeaderWorkerSet" or role not in counts:
        return body
    return {**body, "spec": {**body["spec"], "replicas": counts[role]}}


def _machines(recipe: Recipe) -> list[str]:
    return [spec.instance_type for spec in recipe.roles().values() if spec.instance_type]


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
    return deployment + _SUFFIX
