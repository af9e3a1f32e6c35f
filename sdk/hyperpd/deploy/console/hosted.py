"""The recipe as the target sagemaker_endpoint has it: what an endpoint's stack is made of, and if there is one."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.deploy import sagemaker_endpoint
from hyperpd.deploy.console.site import Site
from hyperpd.deploy.sagemaker_endpoint.endpoint import Endpoint
from hyperpd.deploy.target import fate, written

BESIDE = "beside-the-model"  # folder of what goes to the model's own bucket, by hand


def endpoint(site: Site) -> Endpoint:
    """With a role's ARN that stands for the one that the stack makes."""
    missing = [spec for spec in site.file.recipe.roles().values() if not spec.instance_type]
    options = sagemaker_endpoint.Options(
        role_arn=f"arn:{site.partition}:iam::{site.account}:role/hyperpd",
        image=site.image,
        instance_type=site.capacity.roles[0].instance.name if missing else None,
    )
    return Endpoint(site.file, options)


def alone(site: Site) -> bool:
    """Whether the recipe travels by itself, from the stacks' bucket: the image has it not, S3 no files of its model."""
    made = endpoint(site)
    return made.carries_recipe and not made.bucket_and_prefix


def problems(site: Site) -> list[str]:
    """Why there is no endpoint where all workers fit one instance."""
    return list(_problems(site)) if site.one_instance else []


def made(site: Site) -> bool:
    """Whether there is a stack with an endpoint."""
    return site.one_instance and not problems(site)


def losses(site: Site) -> list[str]:
    """What the endpoint takes away of the recipe; or, all of it, why."""
    if found := problems(site):
        return [f"{one} (so there is no stack with an endpoint)" for one in found]
    return sagemaker_endpoint.losses(site.file.recipe, endpoint(site).options) if site.one_instance else []


def _problems(site: Site) -> Iterator[str]:
    recipe = site.file.recipe
    for path in written(recipe):
        found = fate(sagemaker_endpoint.FIELDS, path)
        if found and found.fate == "refused" and path != "gateway.auth":  # what of it is refused the console says
            yield f"{path}: an endpoint refuses it: {found.how}"
    for one in sagemaker_endpoint.problems(recipe, endpoint(site).options):
        gated = one.startswith("model.huggingface: ")  # refused altogether, by the console's own word
        if not (gated or (alone(site) and one.startswith("model: "))):
            yield one
