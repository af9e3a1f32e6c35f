"""The target hub_recipe: what stock hyp takes from a private hub (hyp init hyp-recipe-job, configure, create).

A template of the objects, its parameters, and the hub's document that says where both lie. The objects are those of
the target kubernetes or, with the option objects, of inference_operator. hyp posts them as they are, but not every
kind: those it cannot are in a file for kubectl. It creates, and never updates or deletes.
"""

from __future__ import annotations

from hyperpd.deploy.hub_recipe import hyp, objects, template
from hyperpd.deploy.hub_recipe.fields import FIELDS
from hyperpd.deploy.hub_recipe.options import Options
from hyperpd.deploy.target import Document
from hyperpd.recipe import Recipe, RecipeFile

__all__ = ["BEFORE", "FIELDS", "NAME", "SUMMARY", "Options", "documents", "losses", "problems"]

NAME = "hub_recipe"
SUMMARY = f"Stock hyp {hyp.VERSION}: a recipe of a private hub, for hyp init hyp-recipe-job, configure and create"
BEFORE = "0-before.yaml"


def problems(recipe: Recipe, options: Options) -> list[str]:
    """Why this recipe cannot be rendered with these options; every problem at once."""
    found = [*options.needless(), *objects.form(options).problems(recipe, options)]
    if not options.bucket:
        found.append("bucket: hyp init reads the template from S3; give --set bucket=s3://BUCKET/PREFIX")
    return found


def losses(recipe: Recipe, options: Options) -> list[str]:
    """What the target of the objects loses, and what hyp cannot post."""
    form = objects.form(options)
    cannot = f"hyp {hyp.VERSION} posts them to a path that no server has; before hyp create: kubectl apply -f {BEFORE}"
    return [*form.losses(recipe, options), f"{form.KUBECTLS}: {cannot}"]


def documents(file: RecipeFile, options: Options) -> list[Document]:
    """What kubectl makes before, then hyp's three files."""
    before, _ = objects.documents(file, options)
    text = template.template(file, options, losses(file.recipe, options))
    spec = template.written(template.parameters(file.recipe, options))
    document = template.hub_document(file.recipe, options, spec, text)
    first, *rest = before
    return [
        Document(BEFORE, f"{_said_before(options)}\n{first.comment}", first.body, first.notes),
        *(Document(BEFORE, one.comment, one.body, one.notes) for one in rest),
        Document(template.PARAMETERS, "What hyp configure may change.", spec),
        Document(template.TEMPLATE, "What hyp create renders and posts.", text),
        Document(template.HUB_DOCUMENT, "What the hub says: where both lie.", template.written(document)),
    ]


def _said_before(options: Options) -> str:
    return (
        f"Before hyp create, as hyp {hyp.VERSION} cannot post it: kubectl apply --filename {BEFORE}. The cluster also"
        f" needs {objects.form(options).NEEDS}. hyp creates only: to change or end what it made, use kubectl."
    )
