"""The target llm_d: the workers of the target kubernetes, unchanged, behind llm-d's endpoint picker.

kubernetes' objects with its option llm_d, less hyperpd's own gateway where the option front does not keep it; an
HTTPRoute with its policies; and a helmfile with llm-d's chart, which makes the InferencePool and the endpoint picker.
"""

from __future__ import annotations

from dataclasses import replace

from hyperpd.deploy import kubernetes
from hyperpd.deploy.kubernetes import metrics, network, sidecar
from hyperpd.deploy.kubernetes.fleet import Fleet
from hyperpd.deploy.llm_d import charts, picker, refusals, routes
from hyperpd.deploy.llm_d.fields import FIELDS
from hyperpd.deploy.llm_d.options import Options
from hyperpd.deploy.target import Document, written
from hyperpd.recipe import Recipe, RecipeFile

__all__ = ["FIELDS", "NAME", "SUMMARY", "Options", "documents", "losses", "problems"]

NAME = "llm_d"
SUMMARY = f"llm-d {sidecar.ROUTER_VERSION}: the workers of kubernetes behind its router, as a helmfile; Istio or NGINX"
_TTFT = "ttft"  # the trigger that asks hyperpd's gateway


def problems(recipe: Recipe, options: Options) -> list[str]:
    """Why this recipe cannot be rendered with these options; every problem at once."""
    return [*kubernetes.problems(recipe, options), *refusals.problems(recipe, options)]


def losses(recipe: Recipe, options: Options) -> list[str]:
    """What kubernetes loses, and what llm-d cannot be told."""
    found = kubernetes.losses(recipe, options)
    if loss := picker.loss(recipe):
        found.append(loss)
    if options.clients_namespace:
        found.append("clients_namespace: holds for hyperpd's own gateway; who reaches the Gateway reaches llm-d")
    paths = set(written(recipe))
    if "gateway.replicas" in paths and options.front == "llm_d":
        found.append("gateway.replicas: hyperpd's gateway is not here (option front)")
    if "gateway.limits.body_mib" in paths and options.route == "istio":
        found.append("gateway.limits.body_mib: no limit; Istio has none for a route")
    if recipe.slo.ttft_ms and any(role.autoscaling for role in recipe.roles().values()):
        found.append("slo.ttft_ms: nothing scales by it; only hyperpd's gateway measures it as this trigger needs it")
    return found


def documents(file: RecipeFile, options: Options) -> list[Document]:
    """kubernetes' objects, llm-d's, and the helmfile, in the order in which they are applied."""
    fleet = Fleet(file, options)
    ours = [_unmeasured(one) for one in kubernetes.documents(file, options)]
    if options.front == "llm_d":
        ours = [one for one in ours if not _of_gateway(fleet, one)]
    before = [one for one in ours if one.file <= network.FILE]
    return [
        *before,
        *routes.policies(fleet, options),
        *ours[len(before) :],
        *routes.documents(fleet, options),
        *charts.documents(fleet, options),
    ]


def _of_gateway(fleet: Fleet, document: Document) -> bool:
    """Whether an object is of hyperpd's own gateway: in its namespace, or that itself."""
    meta = document.body["metadata"] if not isinstance(document.body, str) else {}
    return fleet.namespace("gateway") in (meta.get("namespace"), meta.get("name"))


def _unmeasured(document: Document) -> Document:
    """A scaler without the signal of hyperpd's gateway: where that is missing, KEDA takes no worker away any more."""
    if document.file != metrics.SCALING_FILE or isinstance(document.body, str):
        return document
    spec = document.body["spec"]
    kept = [index for index, trigger in enumerate(spec["triggers"]) if trigger["name"] != _TTFT]
    notes = {key: note for key, note in (document.notes or {}).items() if not key.startswith("spec.triggers.")}
    for new, index in enumerate(kept):
        notes[f"spec.triggers.{new}"] = (document.notes or {})[f"spec.triggers.{index}"]
    triggers = [spec["triggers"][index] for index in kept]
    return replace(document, body={**document.body, "spec": {**spec, "triggers": triggers}}, notes=notes)
