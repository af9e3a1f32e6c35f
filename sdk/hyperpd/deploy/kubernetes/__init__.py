"""The target kubernetes: HyperPod EKS or plain EKS, with hyperpd's own gateway.

Two namespaces: the gateway's, and the engines'. A worker is a pod of its role's Deployment, or a group of a
LeaderWorkerSet where it spans machines; with the fabric `local` all is one pod. Gateways find workers by
DNS, so nothing here may ask the API server.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hyperpd.deploy.kubernetes import access, gateway, metrics, network, queue, refusals, workers
from hyperpd.deploy.kubernetes.fields import FIELDS
from hyperpd.deploy.kubernetes.fleet import Fleet
from hyperpd.deploy.kubernetes.options import Options
from hyperpd.deploy.target import Document, written
from hyperpd.recipe import Recipe, RecipeFile, Role

__all__ = ["FIELDS", "NAME", "SUMMARY", "Options", "documents", "losses", "problems"]

NAME = "kubernetes"
SUMMARY = "HyperPod EKS or plain EKS: Deployments, LeaderWorkerSets and hyperpd's own gateway"


def problems(recipe: Recipe, options: Options) -> list[str]:
    """Why this recipe cannot be rendered with these options; every problem at once."""
    return list(refusals.problems(Fleet(RecipeFile(recipe, Path(), ""), options)))


def losses(recipe: Recipe, options: Options) -> list[str]:
    """What is said of an SLO, and nothing follows from it; what a queue cannot be told."""
    found = []
    for path in (path for path in written(recipe) if path.startswith("slo.")):
        role: Role = "aggregated" if recipe.aggregated else "prefill" if path == "slo.ttft_ms" else "decode"
        if not recipe.role(role).autoscaling:
            found.append(f"{path}: {role} has no autoscaling, so nothing follows it")
    lost = queue.loss(Fleet(RecipeFile(recipe, Path(), ""), options))
    return found + ([f"queue: {lost}"] if lost else [])


def documents(file: RecipeFile, options: Options) -> list[Document]:
    """The objects in the order in which they are applied, which is that of the files' names, too."""
    fleet = Fleet(file, options)
    return [
        *access.rooms(fleet),
        *_recipes(fleet),
        *network.policies(fleet),
        *network.services(fleet),
        *workers.documents(fleet),
        *gateway.documents(fleet),
        *metrics.monitors(fleet),
        *metrics.scalers(fleet),
    ]


def _recipes(fleet: Fleet) -> Iterator[Document]:
    """The recipe as it was written, once in each namespace."""
    comment = (
        "Byte for byte. It never changes: another recipe has another name, so that pods keep the one they began with."
    )
    for room in fleet.rooms:
        yield Document("2-recipe.yaml", comment, fleet.configmap(fleet.namespace(room)))
