"""The target hub_recipe: what stock hyp takes from a private hub (hyp init hyp-recipe-job, configure, create).

A template of the objects, its parameters, and the hub's document that says where both lie. hyp posts objects as they
are, but not every kind: those it cannot are in a file for kubectl. It creates, and never updates or deletes.
"""

from __future__ import annotations

from hyperpd.deploy import kubernetes
from hyperpd.deploy.hub_recipe import hyp, objects, template
from hyperpd.deploy.hub_recipe.fields import FIELDS
from hyperpd.deploy.hub_recipe.options import Options
from hyperpd.deploy.target import Document
from hyperpd.recipe import Recipe, RecipeFile

__all__ = ["BEFORE", "FIELDS", "NAME", "SUMMARY", "Options", "documents", "losses", "problems"]

NAME = "hub_recipe"
SUMMARY = f"Stock hyp {hyp.VERSION}: a recipe of a private hub, for hyp init hyp-recipe-job, configure and create"
BEFORE = "0-before.yaml"
_BEFORE = (
    f"Before hyp create, as hyp {hyp.VERSION} cannot post it: kubectl apply --filename {BEFORE}. The cluster also needs"
    " LeaderWorkerSet's controller. hyp creates only: to change or end what it made, use kubectl."
)
_APART = "since a pod group cannot hold a LeaderWorkerSet's groups: one may hold machines while the other waits"


def problems(recipe: Recipe, options: Options) -> list[str]:
    """Why this recipe cannot be rendered with these options; every problem at once."""
    found = kubernetes.problems(recipe, options)
    if not options.bucket:
        found.append("bucket: hyp init reads the template from S3; give --set bucket=s3://BUCKET/PREFIX")
    types = template.instance_types(recipe, Options())
    if not types and not options.instance_type:
        role = next(iter(recipe.roles()))
        found.append(f"{role}.instance_type: missing, and hyp init asks for one; give --set instance_type=ml.…")
    if types and options.instance_type:
        found.append(f"instance_type: the recipe names {', '.join(types)}; remove it here")
    return found


def losses(recipe: Recipe, options: Options) -> list[str]:
    """What kubernetes loses, and what hyp cannot post."""
    found = kubernetes.losses(recipe, options)
    local = recipe.fabric == "local"
    if options.queue and not recipe.aggregated and not local and not any(one.startswith("queue:") for one in found):
        found.append(f"queue: prefill and decode are admitted apart, {_APART}")
    return [*found, f"Namespace, ServiceAccount: {_cannot()}"]


def documents(file: RecipeFile, options: Options) -> list[Document]:
    """What kubectl makes before, then hyp's three files."""
    before, _ = objects.documents(file, options)
    text = template.template(file, options, losses(file.recipe, options))
    spec = template.written(template.parameters(file.recipe, options))
    document = template.hub_document(file.recipe, options, spec, text)
    first, *rest = before
    return [
        Document(BEFORE, f"{_BEFORE}\n{first.comment}", first.body, first.notes),
        *(Document(BEFORE, one.comment, one.body, one.notes) for one in rest),
        Document(template.PARAMETERS, "What hyp configure may change.", spec),
        Document(template.TEMPLATE, "What hyp create renders and posts.", text),
        Document(template.HUB_DOCUMENT, "What the hub says: where both lie.", template.written(document)),
    ]


def _cannot() -> str:
    return f"hyp {hyp.VERSION} posts them to a path that no server has; before hyp create: kubectl apply -f {BEFORE}"
