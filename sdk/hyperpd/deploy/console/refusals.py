"""Why a recipe cannot be rendered with these options, beyond fields that are always refused."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd import instances, models
from hyperpd.deploy.console import hosted, image, links, page, serve
from hyperpd.deploy.console.site import Site
from hyperpd.errors import CapacityError, RecipeError

# Where one of these stands, a right to read a prefix would be one to read others, or mean something to CloudFormation.
_WIDENS = ("*", "?", "$")


def problems(site: Site) -> Iterator[str]:
    """Every problem, each with the field or option it is about."""
    if site.recipe.accelerator == "cpu":
        yield (
            "accelerator: cpu: no instance type is named, so there is no group to make; try a recipe for GPUs, or the"
            " target kubernetes"
        )
        return
    missing = list(_missing(site))
    yield from missing
    yield from _recipe(site)
    yield from _orchestrator(site)
    yield from _places(site)
    nodes = list(_nodes(site))
    yield from nodes
    if missing or nodes:
        return  # the rest looks at all of these
    yield from _image(site)
    if site.eks:
        yield from serve.problems(site)
    for name, url in page.urls(site).items():
        if len(url) > links.URL_MAX or len(links.template_url(site, name)) > links.TEMPLATE_URL_MAX:
            yield (
                f"prefix: the address that creates {name} has {len(url)} characters, at most {links.URL_MAX}; shorten"
                f" it"
            )


def _missing(site: Site) -> Iterator[str]:
    options = site.options
    if not options.region:
        yield "region: missing; give --set region=us-east-1 or another"
    if not options.bucket:
        yield "bucket: missing; give --set bucket=sagemaker-…, a name that nobody in the world has"
    if not (options.image or site.recipe.image):
        yield "image: the recipe names none; give --set image=…, or write it there (hyperpd image mirror)"
    elif not site.registry:
        yield (
            f"image: {site.image} is not in ECR, from where nodes and endpoints pull; hyperpd image mirror copies it"
        )


def _recipe(site: Site) -> Iterator[str]:
    recipe = site.recipe
    if recipe.gateway.auth == "keys":
        yield "gateway.auth: keys: the console's test pages send no key; IAM is what guards them, so say none"
    if (known := models.find(recipe.model.huggingface)) and known.gated:
        yield (
            f"model.huggingface: {known.name} is gated: Hugging Face hands it out with a token only, and nothing here"
            " gives workers one; put its files in S3 and say model.s3 instead"
        )
    if recipe.fabric == "infiniband" and not recipe.aggregated:
        yield "kv_transfer.fabric: HyperPod has no InfiniBand; try efa"
    if recipe.model.s3 and not recipe.model.s3.removeprefix("s3://").partition("/")[2].strip("/"):
        yield "model.s3: a whole bucket, and a right to all of it; give a prefix"
    yield from _spanning(site)
    if recipe.model.s3 and any(one in recipe.model.s3 for one in _WIDENS):
        yield f"model.s3: {recipe.model.s3} has one of {' '.join(_WIDENS)} in it, which mean more in a policy of IAM"
    tiers = [role for role, spec in recipe.roles().items() if spec.kv_tiers and spec.kv_tiers.managed]
    if tiers and not site.eks:
        yield f"{tiers[0]}.kv_tiers.managed: HyperPod has its tiered storage on EKS; use orchestrator=eks"


def _spanning(site: Site) -> Iterator[str]:
    """Workers over several nodes are LeaderWorkerSets, whose controller comes from outside."""
    roles = [role for role, spec in site.recipe.roles().items() if spec.parallel.nodes > 1]
    if site.options.leader_worker_set and not (roles and site.eks):
        yield "leader_worker_set: no LeaderWorkerSet is made here; remove it"
    elif site.eks and roles and not site.options.leader_worker_set:
        yield (
            f"{roles[0]}.parallel.nodes: a worker over several nodes takes the controller of LeaderWorkerSet on the EKS"
            " cluster, which is no add-on of EKS, and no click installs it. Where it is there, say --set"
            " leader_worker_set=true. Otherwise choose a recipe whose workers fit a node each; or somebody with a"
            " terminal installs it, once (helm; the target kubernetes needs it, too)"
        )


def _orchestrator(site: Site) -> Iterator[str]:
    """Options of the other orchestrator would do nothing."""
    given = site.options.model_fields_set
    others = {"availability_zone"} if site.eks else {"eks_cluster_arn", "eks_security_group_id", "namespace"}
    for name in sorted(given & others):
        yield f"{name}: has no meaning with orchestrator={site.options.orchestrator}; remove it"
    if not site.eks and bool(site.options.vpc_id) != bool(site.options.subnet_id):
        yield "vpc_id, subnet_id: one goes with the other; with neither a VPC is made"
    if not site.eks and site.options.route_table_id and not site.options.vpc_id:
        yield "route_table_id: goes with vpc_id; a VPC that is made has its own"


def _places(site: Site) -> Iterator[str]:
    """What names another Region than the stacks'."""
    region, options = site.options.region, site.options
    if not region:
        return
    if options.availability_zone and options.availability_zone[:-1] != region:
        yield f"availability_zone: {options.availability_zone} is not in {region}"
    for name in ("eks_cluster_arn", "training_plan_arn"):
        arn = getattr(options, name)
        if arn and arn.split(":")[3] != region:
            yield f"{name}: is in {arn.split(':')[3]}, the stacks are in {region}"


def _nodes(site: Site) -> Iterator[str]:
    roles, given = site.recipe.roles(), site.options.instance_type
    for role, spec in roles.items():
        if not spec.instance_type:
            yield f"{role}.instance_type: missing; write it in the recipe, or give --set instance_type=ml.…"
            return
        try:
            instances.find(spec.instance_type)
        except RecipeError as error:
            yield from (f"{role}.instance_type: {problem}" for problem in error.problems)
            return
    if given and all(spec.instance_type for spec in site.file.recipe.roles().values()):
        yield "instance_type: the recipe names every role's instance type, so nothing would use it"
    if site.local and site.eks and "gateway_instance_type" in site.options.model_fields_set:
        yield "gateway_instance_type: with kv_transfer.fabric: local the gateway is on the workers' node"
    try:
        _ = site.capacity
    except CapacityError as error:
        yield str(error)


def _image(site: Site) -> Iterator[str]:
    """Who pulls the image, and the rights to it, are in the stacks' Region. Without EKS an endpoint is all there is."""
    region, account = site.registry["region"], site.registry["account"]
    if (site.eks or site.one_instance) and region != site.options.region:
        yield f"image: is in {region}; what runs in {site.options.region} pulls from its own Region"
    if image.made(site) and site.account != account:
        yield f"account: {site.account}, but the image that a stack builds there is named as one of {account}"
    if (arn := site.options.eks_cluster_arn) and (owner := arn.split(":")[4]) != site.account:
        yield f"eks_cluster_arn: is of the account {owner}, the stacks are of {site.account}; give --set account="
    if site.options.efa_sha256 and not image.made(site):
        yield "efa_sha256: no stack builds the image; remove it, or name the image by a tag"
    if not site.eks:
        yield from (f"{one} (orchestrator slurm: an endpoint is what serves)" for one in hosted.problems(site))
