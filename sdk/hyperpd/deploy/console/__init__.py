"""The target console: for people who click. CloudFormation stacks, addresses that open them filled in, and a page that
says what to click, from a bucket to a served request. What has to be there before, it says first.

The folder that `hyperpd render --target console -o FOLDER` writes is what is uploaded: lifecycle scripts, the recipe
and the stacks' templates lie in it as they have to lie in the bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hyperpd.deploy.console import cluster, endpoint, hosted, image, page, refusals, serve, uploads
from hyperpd.deploy.console.fields import FIELDS
from hyperpd.deploy.console.options import Options
from hyperpd.deploy.console.site import Site
from hyperpd.deploy.target import Document, fate, written
from hyperpd.recipe import Recipe, RecipeFile

__all__ = ["FIELDS", "NAME", "SUMMARY", "Options", "documents", "losses", "problems"]

NAME = "console"
SUMMARY = "The AWS console: CloudFormation for a cluster and for what is served, and a page of what to click"


def problems(recipe: Recipe, options: Options) -> list[str]:
    """Why this recipe cannot be rendered with these options; every problem at once."""
    return list(refusals.problems(Site(RecipeFile(recipe, Path(), ""), options)))


def losses(recipe: Recipe, options: Options) -> list[str]:
    """What this recipe says and these stacks do not."""
    return list(_losses(Site(RecipeFile(recipe, Path(), ""), options)))


def documents(file: RecipeFile, options: Options) -> list[Document]:
    """The page, the stacks in the order in which they are made, and all that is uploaded beside them."""
    site = Site(file, options)
    below = f"upload/{options.prefix}"
    stacks = [*([image.document(site)] if image.made(site) else []), cluster.cluster(site)]
    if hosted.made(site):
        stacks.append(endpoint.document(site))
    if site.eks:
        stacks.append(serve.document(site))
    return [
        page.document(site),
        cluster.bucket(site),
        *(Document(f"{below}/{one.file}", one.comment, one.body, one.notes) for one in stacks),
        page.pasted(site),
        *uploads.documents(site, below),
    ]


def _losses(site: Site) -> Iterator[str]:
    recipe = site.recipe
    if not (site.eks or hosted.made(site)):
        yield "model: Slurm takes jobs from a terminal only, so these stacks end with a cluster; use orchestrator=eks"
    yield from hosted.losses(site)
    for one in serve.losses(site) if site.eks else ():
        if not ((field := fate(FIELDS, one.partition(":")[0])) and field.fate == "not expressed"):  # said already
            yield one
    if "gateway.replicas" in written(recipe) and (recipe.gateway.replicas > 2 or (site.local and not site.eks)):
        yield "gateway.replicas: at most two nodes are made for gateways, and none where all is on one"
